package api_test

import (
	"testing"

	gosmtp "github.com/emersion/go-smtp"
	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestREL69HostileEvents is REL-69: an event whose texts cannot be stored becomes a dead
// letter and delays no other, also if its mail would be deferred.
func TestREL69HostileEvents(t *testing.T) {
	t.Parallel()
	s := newService(t)
	good := newAddress()
	s.smtp.OnRcpt(func(to string) error {
		if to != good {
			return &gosmtp.SMTPError{Code: 451, EnhancedCode: gosmtp.EnhancedCode{4, 3, 0}, Message: "later"}
		}
		return nil
	})
	for _, e := range []event.Event{
		testkit.NewEvent(t.Context(), uuid.NewString(), event.UserPasswordChanged{Method: "change", Email: "ann@example.com", Name: "Ann"}),
		testkit.NewEvent(t.Context(), uuid.NewString(), event.UserDeleted{}),
	} {
		for _, hostile := range testkit.HostileEvents(e) {
			s.publish(hostile)
		}
	}
	s.publish(s.requested(good, nil))
	s.wantMails(good, 1)
	s.wantAcknowledged()
}
