package api_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/email-service/internal/api"
)

// TestDeletedUserGetsNoMail: no mail is sent for a deleted account, and the addresses of
// earlier mails are erased.
func TestDeletedUserGetsNoMail(t *testing.T) {
	t.Parallel()
	s := newService(t)
	to := newAddress()
	first := s.requested(to, nil)
	s.publish(first)
	s.wantMails(to, 1)
	s.wantAcknowledged()
	deleted := testkit.NewEvent(t.Context(), first.Subject, event.UserDeleted{})
	s.publish(deleted)
	s.wantAcknowledged()
	s.publish(testkit.NewEvent(t.Context(), first.Subject, event.SessionRefreshReused{SessionID: "s", Email: to, Name: "Ann"}))
	s.wantAcknowledged()
	s.wantMails(to, 1)
	s.wantStatus(first, "sent", 1)
	var page struct{ Data []struct{ ID string } }
	if status := s.get(api.Prefix+"/messages?to="+url.QueryEscape(to), token.RoleAdmin, &page); status != 200 || len(page.Data) != 0 {
		t.Errorf("messages to the address = %d, %+v", status, page)
	}
	// Another account may use the address now.
	s.publish(s.requested(to, func(p *event.UserVerificationRequested) { p.ExpiresAt = time.Now().Add(time.Hour) }))
	s.wantMails(to, 2)
}
