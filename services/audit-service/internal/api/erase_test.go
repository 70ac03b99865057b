package api_test

import (
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/event"
)

// TestSEC70DeletedUserIsErased is SEC-70: the records of a deleted account stay, without
// personal data, whether they were made before the deletion or after it.
func TestSEC70DeletedUserIsErased(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const gone = "01926f39-0000-7000-8000-000000000001"
	own := event.Origin{Actor: event.Actor{Type: "user", ID: gone}, IP: "192.0.2.77", UserAgent: "Ann's Browser"}
	admins := event.Origin{Actor: event.Actor{Type: "admin", ID: "01926f39-0000-7000-8000-00000000000a"}, IP: "192.0.2.1"}
	signUp := event.UserSignedUp{Email: "ann@example.com", Name: "Ann", Role: "user"}
	stranger := event.Origin{Actor: event.Actor{Type: "anonymous"}, IP: "192.0.2.9"}
	failed := event.UserLoginFailed{Reason: "invalid_credentials"}
	s.publish(newEvent(gone, own, signUp), newEvent(gone, stranger, failed), newEvent(gone, own, event.UserLoggedIn{SessionID: "s", DeviceName: "Ann's phone"}),
		newEvent("somebody else", admins, signUp))
	s.wantRecords(4)
	s.publish(newEvent(gone, admins, event.UserDeleted{}))
	s.wantRecords(5)
	s.publish(newEvent(gone, own, event.UserEmailVerified{Email: "ann@example.com"}), newEvent(gone, stranger, failed), newEvent("", stranger, failed))
	s.wantRecords(8)
	s.publish(newEvent("", admins, event.UserDeleted{})) // It has no subject.
	others, strangers := 0, 0
	for _, r := range s.wantRecords(9) {
		data := string(r.Data)
		switch {
		case r.Actor.ID == "" && r.SubjectID == gone:
			if r.IP != "" {
				t.Errorf("%s still has the address %s, which may be the user's", r.Type, r.IP)
			}
		case r.Actor.ID == "":
			if r.IP == stranger.IP {
				strangers++
			}
		case r.SubjectID == "":
		case r.SubjectID != gone:
			others++
			if !strings.Contains(data, "ann@example.com") || r.IP == "" {
				t.Errorf("the record of another user was erased: %+v %s", r, data)
			}
		case strings.Contains(strings.ToLower(data), "ann"):
			t.Errorf("%s still has personal data: %s", r.Type, data)
		case r.Actor.ID == gone && (r.IP != "" || r.UserAgent != ""):
			t.Errorf("%s still has the origin %s, %s", r.Type, r.IP, r.UserAgent)
		case r.Actor.ID != gone && r.IP == "":
			t.Errorf("%s has lost the address of the administrator", r.Type)
		}
		if r.Type == "user.signed_up" && !strings.Contains(data, `"role"`) {
			t.Errorf("data that is not personal was erased: %s", data)
		}
	}
	if others != 1 || strangers != 1 {
		t.Errorf("%d records of other users and %d of anonymous actors have an address, want 1 and 1", others, strangers)
	}
}
