package api_test

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/pquerna/otp/totp"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// administrator is an administrator with a session.
type administrator struct {
	tokens

	userID, email string
}

func (s *service) admin() administrator {
	s.t.Helper()
	email := newEmail()
	created, err := s.accounts.CreateAdmin(s.t.Context(), account.SignUp{Email: email, Password: goodPassword, Name: "Root"})
	if err != nil {
		s.t.Fatal(err)
	}
	return administrator{tokens: s.login(email).Data.Tokens, userID: created.ID, email: email}
}

func newEmail() string { return "u" + uuid.NewString() + "@example.com" }

func (s *service) login(email string) answer {
	s.t.Helper()
	return s.want(s.call("POST", "/login", "", fields{"email": email, "password": goodPassword}), http.StatusOK, "")
}

// at returns the same service for a client with an IP address.
func (s *service) at(ip string) *service { return s.with("X-Forwarded-For", ip) }

func (s *service) try(email, secret string) answer {
	s.t.Helper()
	return s.call("POST", "/login", "", fields{"email": email, "password": secret})
}

// changeEmail changes and confirms the address of an account.
func (s *service) changeEmail(bearer, to string) {
	s.t.Helper()
	s.want(s.call("POST", "/change-email", bearer, fields{"newEmail": to, "currentPassword": goodPassword}), 202, "")
	s.want(s.call("POST", "/change-email/confirm", bearer, fields{"token": s.link(event.UserEmailChangeLinkIssued{}, to, 1)}), 200, "")
}

const otherPassword = "quite another battery"

func (s *service) forgot(email string) {
	s.t.Helper()
	s.want(s.call("POST", "/forgot-password", "", fields{"email": email}), 202, "")
}

// count returns the number of events of a kind on a topic.
func (s *service) count(topic event.Topic, kind event.Payload) int {
	s.t.Helper()
	n := 0
	for _, e := range s.events(topic) {
		if e.Name == kind.EventName() {
			n++
		}
	}
	return n
}

func (s *service) wantCount(topic event.Topic, kind event.Payload, n int) {
	s.t.Helper()
	testkit.Eventually(s.t, func() error {
		if got := s.count(topic, kind); got != n {
			return fmt.Errorf("%d events %s on %s, want %d", got, kind.EventName(), topic, n)
		}
		return nil
	})
}

// parallel sends the same request 20 times in parallel and counts the answers.
func (s *service) parallel(path string, body fields) map[string]int {
	s.t.Helper()
	answers := make(chan answer, 20)
	var wg sync.WaitGroup
	for range cap(answers) {
		wg.Go(func() { answers <- s.call("POST", path, "", body) })
	}
	wg.Wait()
	close(answers)
	count := map[string]int{}
	for a := range answers {
		count[fmt.Sprintf("%d %s", a.status, a.Code)]++
	}
	return count
}

// wantServed waits until all link requests are handled.
func (s *service) wantServed() {
	s.t.Helper()
	testkit.Eventually(s.t, func() error {
		var left int
		if err := s.db.QueryRow(s.t.Context(), `SELECT count(*) FROM mail_requests`).Scan(&left); err != nil || left > 0 {
			return fmt.Errorf("%d requests left, %w", left, err)
		}
		return nil
	})
}

// code returns the current code of an authenticator app.
func (s *service) code(secret string) string {
	s.t.Helper()
	code, err := totp.GenerateCode(secret, s.time())
	if err != nil {
		s.t.Fatal(err)
	}
	return code
}

// enrol adds a TOTP factor to an account.
func (s *service) enrol(bearer string) (id, secret string, recovery []string) {
	s.t.Helper()
	e := s.want(s.call("POST", "/mfa/totp", bearer, nil), 201, "").Data
	recovery = s.want(s.call("POST", "/mfa/totp/"+e.FactorID+"/verify", bearer, fields{"code": s.code(e.Secret), "password": goodPassword}), 200, "").Data.RecoveryCodes
	s.advance(30 * time.Second) // The current code is used.
	return e.FactorID, e.Secret, recovery
}

// prove re-authenticates and returns the proof.
func (s *service) prove(bearer string, with fields) string {
	s.t.Helper()
	return s.want(s.call("POST", "/reauthenticate", bearer, with), 200, "").Data.Proof
}

func (s *service) challenge(mfaToken, code string) answer {
	s.t.Helper()
	return s.call("POST", "/mfa/challenge", "", fields{"mfaToken": mfaToken, "code": code})
}

// links returns the tokens in the mails of a kind to an address, oldest first.
func (s *service) links(kind event.Payload, to string) []string {
	s.t.Helper()
	var found []string
	for _, e := range s.events(event.Email) {
		if e.Name != kind.EventName() {
			continue
		}
		p, err := event.DecodeLink(e)
		if err != nil {
			s.t.Fatal(err)
		}
		if p.Email != to {
			continue
		}
		link, err := s.sealer.Open(p.Token, event.LinkContext(kind, e.Subject))
		if err != nil {
			s.t.Fatal(err)
		}
		found = append(found, link)
	}
	return found
}

// link waits for the nth mail of a kind to an address, counted from 1, and returns its
// token.
func (s *service) link(kind event.Payload, to string, n int) string {
	s.t.Helper()
	var found []string
	testkit.Eventually(s.t, func() error {
		if found = s.links(kind, to); len(found) < n {
			return fmt.Errorf("%d mails of %s to %s, want %d", len(found), kind.EventName(), to, n)
		}
		return nil
	})
	return found[n-1]
}

// verifyLink signs up and returns the verification link.
func (s *service) verifyLink(email string) string {
	s.t.Helper()
	s.signup(email)
	return s.link(event.UserVerificationRequested{}, email, 1)
}

// verify uses the nth verification link of an account with its password.
func (s *service) verify(email string, n int, password string) {
	s.t.Helper()
	link := s.link(event.UserVerificationRequested{}, email, n)
	s.want(s.call("POST", "/verify-email", "", fields{"token": link, "password": password}), 200, "")
}

// verified signs up and verifies the address.
func (s *service) verified(email string) answer {
	s.t.Helper()
	a := s.signup(email)
	s.verify(email, 1, goodPassword)
	return a
}
