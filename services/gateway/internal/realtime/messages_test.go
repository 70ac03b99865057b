package realtime_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/gateway/internal/realtime"
)

// TestSEC155EndedSessions: the connections of a session that ends close, however it ends.
func TestSEC155EndedSessions(t *testing.T) {
	t.Parallel()
	f := newFed(t)
	ended, other := f.open("ann", "ended", nil), f.open("ann", "other", nil)
	f.Users().Event(bus.MarkAt(began.Add(time.Second)), testkit.NewEvent(t.Context(), "ann", event.SessionRevoked{SessionID: "ended", Reason: "admin"}))
	if why := ended.Why(); why == nil || why.Code != 4401 {
		t.Errorf("the ended session: %v", why)
	}
	f.updated("ann", 2*time.Second)
	wantMessages(t, ended, opened)
	wantMessages(t, other, opened, "session.revoked", "user.updated 2s")

	for reason, err := range map[string]error{"token_expired": token.ErrExpired, "session_revoked": token.ErrRevoked} {
		c := f.open("ann", reason, nil)
		check := func(s token.Session) error {
			if s.ID == reason {
				return err
			}
			return nil
		}
		f.ended.Store(&check)
		select {
		case <-c.Done():
			if why := c.Why(); why == nil || why.Code != 4401 || why.Reason != reason {
				t.Errorf("%s: %v", reason, why)
			}
		case <-time.After(testkit.Timeout):
			t.Errorf("%s: the connection is open", reason)
		}
		if _, err := f.Open(t.Context(), realtime.Client{Identity: token.Identity{UserID: "ann"}, Session: token.Session{ID: reason}}); err == nil {
			t.Errorf("%s: another connection was opened", reason)
		}
	}
}

// TestSEC154Translation: a message has nothing of an event but what is listed here, and goes to
// the subject alone.
func TestSEC154Translation(t *testing.T) {
	t.Parallel()
	f := newFed(t)
	ann, bob := f.open("ann", "s", nil, realtime.Channels()...), f.open("bob", "s", nil)
	admins := []event.Payload{event.AuditAppended{Count: 3}, event.DeadLetterAdded{Count: 2}}
	own := []event.Payload{
		event.UserLoggedIn{SessionID: "new", DeviceName: "secret"},
		event.UserLoggedIn{SessionID: "new", Method: "passkey"},
		event.SessionRevoked{SessionID: "other", Reason: "admin"},
		event.UserLoggedOut{SessionID: "other"},
		event.UserProfileUpdated{Fields: []string{"bio"}, Version: 7},
		event.UserEmailVerified{Email: "secret"},
		event.UserEmailChanged{Email: "secret", PreviousEmail: "secret"},
		event.UserRoleChanged{Before: "user", After: "admin", Email: "secret", Name: "secret"},
	}
	at := 0
	feed := func(o bus.Observer, subject string, payloads ...event.Payload) {
		for _, p := range payloads {
			at++
			o.Event(bus.MarkAt(began.Add(time.Duration(at)*time.Second)), testkit.NewEvent(t.Context(), subject, p))
		}
	}
	feed(f.Users(), "ann", own...)
	feed(f.Hints(), "ann", event.EmailSent{MessageID: "secret", Template: "verify", To: "secret"})
	feed(f.Hints(), "", admins...)
	feed(f.Users(), "ann", admins...)                                    // They belong to another stream,
	feed(f.Hints(), "ann", event.UserProfileUpdated{Fields: []string{}}) // and this one, too.
	feed(f.Users(), "", event.UserProfileUpdated{})                      // about nobody
	feed(f.Users(), "ann", event.UserSignedUp{Email: "secret"}, event.UserDisabled{}, event.UserDeleted{})

	var got []string
	for len(ann.Messages()) > 0 {
		var m struct {
			Type string
			Data json.RawMessage
		}
		if err := json.Unmarshal((<-ann.Messages()).JSON, &m); err != nil {
			t.Fatal(err)
		}
		if m.Type != "stream.lag" { // It comes by itself.
			got = append(got, m.Type+" "+string(m.Data))
		}
	}
	want := []string{
		`session.created {"sessionId":"new","method":"password"}`,
		`session.created {"sessionId":"new","method":"passkey"}`,
		`session.revoked {"sessionId":"other","reason":"admin"}`,
		`session.revoked {"sessionId":"other","reason":"logout"}`,
		`user.updated {"fields":["bio"]}`,
		`user.updated {"fields":["emailVerified"]}`,
		`user.updated {"fields":["email"]}`,
		`user.role_changed {"role":"admin","previousRole":"user"}`,
		`email.sent {"template":"verify"}`,
		`audit.appended {"count":3}`,
		`dead_letter.added {"service":"user-service","count":2}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("ann was told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	wantMessages(t, bob, opened)
}

// TestStreamLag: administrators who listen to the streams are told how far they are behind.
func TestStreamLag(t *testing.T) {
	t.Parallel()
	f := newFed(t)
	c, other := f.open("ann", "s", nil, realtime.Streams), f.open("ann", "s", nil)
	select {
	case m := <-c.Messages():
		if !strings.Contains(string(m.JSON), `"type":"stream.lag"`) || !strings.Contains(string(m.JSON), `"data":{"streams":[{"stream":"user-events","group":"user-service","unread":1,"pending":0}]}`) {
			t.Errorf("message = %s", m.JSON)
		}
	case <-time.After(testkit.Timeout):
		t.Fatal("no message")
	}
	wantMessages(t, other, opened)
}
