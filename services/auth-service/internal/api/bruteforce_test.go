package api_test

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/password"
	"github.com/headgate/headgate/services/auth-service/internal/store"
)

// SEC-31: guessing becomes slower and slower, even from many networks, and the owner can
// still sign in from a known network.
func TestSEC31BruteForce(t *testing.T) {
	t.Parallel()
	s := newService(t)
	home := s.at("192.0.2.1")
	home.signup("ann@example.com")
	guess := func(i int) answer {
		return s.at("198.51.100."+strconv.Itoa(i%250)).try("Ann@example.com", "guess number "+strconv.Itoa(i))
	}
	for i := range 10 {
		s.want(guess(i), 401, "invalid_credentials")
	}
	for _, delay := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second} {
		blocked := s.want(guess(11), 429, "rate_limited")
		if got := blocked.header.Get("Retry-After"); got != strconv.Itoa(int(delay.Seconds())) {
			t.Errorf("Retry-After = %s, want %s", got, delay)
		}
		// The stranger's guesses do not delay the owner.
		s.want(home.try("ann@example.com", goodPassword), 200, "")
		s.want(s.at("203.0.113.7").try("ann@example.com", goodPassword), 429, "rate_limited")
		s.advance(delay)
		s.want(guess(12), 401, "invalid_credentials")
	}
	for range 12 {
		s.advance(16 * time.Minute)
		s.want(guess(13), 401, "invalid_credentials")
	}
	if got := s.want(guess(14), 429, "rate_limited").header.Get("Retry-After"); got != "900" {
		t.Errorf("Retry-After = %s, want 900 and never more", got)
	}
	s.advance(15 * time.Minute)
	s.want(s.at("203.0.113.7").try("ann@example.com", goodPassword), 200, "")
	s.want(guess(15), 401, "invalid_credentials") // A success clears the count.
	if n := s.occurrences(event.UserLoginFailed{}); n < 30 {
		t.Errorf("%d failures were recorded", n)
	}
}

// Guesses from the owner's own network are limited as well.
func TestSEC31BruteForceFromAKnownNetwork(t *testing.T) {
	t.Parallel()
	s := newService(t)
	home := s.at("2001:db8:1:2::1")
	home.signup("ann@example.com")
	for i := range 10 { // The addresses of a /64 are one client.
		s.want(s.at(fmt.Sprintf("2001:db8:1:2::%x", i+2)).try("ann@example.com", "guess"), 401, "invalid_credentials")
	}
	s.want(home.try("ann@example.com", goodPassword), 429, "rate_limited")
	s.want(s.at("203.0.113.7").try("ann@example.com", goodPassword), 200, "")
}

// A guess that was counted by a clock that was ahead delays the next one by no more than its
// own delay.
func TestSEC31GuessCountedByAClockThatWasAhead(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.at("192.0.2.1").signup("ann@example.com")
	far := s.at("203.0.113.7")
	s.advance(time.Hour)
	s.want(far.try("ann@example.com", "guess"), 401, "invalid_credentials")
	s.advance(-time.Hour)
	s.want(far.try("ann@example.com", "guess"), 401, "invalid_credentials")
	s.advance(time.Hour)
	for range 10 {
		far.try("ann@example.com", "guess")
	}
	s.advance(-time.Hour)
	if got := s.want(far.try("ann@example.com", goodPassword), 429, "rate_limited").header.Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After = %s, want 1", got)
	}
}

// Parallel guesses count like consecutive ones, also those with an access token.
func TestSEC31BruteForceInParallel(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.Tokens
	count := map[int]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			var a answer
			if i%2 == 0 {
				a = s.at("198.51.100.1").try("ann@example.com", "guess")
			} else {
				a = s.at("198.51.100.1").call("POST", "/change-password", ann.AccessToken, fields{"currentPassword": "guess", "newPassword": otherPassword})
			}
			mu.Lock()
			defer mu.Unlock()
			count[a.status]++
		})
	}
	wg.Wait()
	if count[401] != 10 || count[429] != 30 {
		t.Errorf("answers = %v, want 10 of 401", count)
	}
}

// Unknown addresses are limited as well. Otherwise the limit would reveal which addresses
// have an account.
func TestSEC31BruteForceOnAnUnknownAddress(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for range 10 {
		s.want(s.try("nobody@example.com", "guess"), 401, "invalid_credentials")
	}
	s.want(s.try("nobody@example.com", "guess"), 429, "rate_limited")
}

// undelayedAttempts is the number of failed attempts before a delay.
const undelayedAttempts = 10

// A password that could not be checked because the service is busy is not a failed
// attempt.
func TestSEC83BusyIsNotAFailedAttempt(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) {
		cfg.Hasher = password.NewHasher(password.Config{Params: password.Standard, Concurrency: 1, Queue: 1})
	})
	s.signup("ann@example.com")
	busy := 0
	// One password is hashed and one waits, so some of eight parallel logins are refused.
	for round := 0; busy < 2*undelayedAttempts; round++ {
		if round == 100 {
			t.Fatalf("%d of %d logins were refused", busy, 8*round)
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				a := s.try("ann@example.com", goodPassword)
				mu.Lock()
				defer mu.Unlock()
				if a.status == 503 {
					busy++
				} else if a.status != 200 {
					t.Errorf("login = %d %s", a.status, a.Code)
				}
			})
		}
		wg.Wait()
	}
	s.want(s.try("ann@example.com", goodPassword), 200, "")
}

// Somebody who knows the password and guesses the code does not lock the owner out of a
// known network (SEC-31).
func TestSEC31GuessesAtTheCode(t *testing.T) {
	t.Parallel()
	s := newService(t)
	home, thief := s.at("192.0.2.1"), s.at("198.51.100.1")
	ann := home.signup("ann@example.com").Data
	_, secret, _ := s.enrol(ann.Tokens.AccessToken)
	for range 2 {
		in := thief.login("ann@example.com").Data
		for range 5 {
			s.want(thief.challenge(in.MFAToken, "000000"), 401, "mfa_code_invalid")
		}
	}
	in := thief.login("ann@example.com").Data
	s.want(thief.challenge(in.MFAToken, "000000"), 429, "rate_limited")
	s.advance(30 * time.Second)
	in = home.login("ann@example.com").Data
	s.want(home.challenge(in.MFAToken, s.code(secret)), 200, "")
}

// A refused guess is recorded for the owner of the account.
func TestSEC79RefusedGuessesAreRecordedForTheOwner(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.User
	for range 10 {
		s.at("198.51.100.1").try("ann@example.com", "guess")
	}
	s.want(s.at("198.51.100.1").try("ann@example.com", "guess"), 429, "rate_limited")
	all := s.events(event.Audit)
	if last := all[len(all)-1]; last.Subject != ann.ID || last.Type() != "user.login_failed" {
		t.Errorf("event = %s of %q, want the failure of %s", last.Type(), last.Subject, ann.ID)
	}
}

// skewedReplica returns another instance of the service on the same database, whose host has a
// clock that differs.
func (s *service) skewedReplica(skew time.Duration, changes ...func(*account.Config)) *service {
	s.t.Helper()
	return s.instance(append(changes, func(cfg *account.Config) {
		cfg.Now = func() time.Time { return s.time().Add(skew) }
	})...)
}

// SEC-97: below the threshold nothing is delayed, and above it every replica delays by the
// clock of the database, wherever the attempts before were counted.
func TestSEC97ClocksThatDiffer(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.at("192.0.2.1").signup("ann@example.com")
	ahead, behind := s.skewedReplica(3*time.Second).at("203.0.113.7"), s.skewedReplica(-3*time.Second).at("203.0.113.7")
	for range 10 {
		var wg sync.WaitGroup
		for _, replica := range []*service{ahead, behind, ahead, behind} {
			wg.Go(func() {
				if a := replica.try("ann@example.com", goodPassword); a.status != 200 {
					t.Errorf("right password = %d %s, want 200", a.status, a.Code)
				}
			})
		}
		wg.Wait()
	}
	far := []*service{ahead.at("198.51.100.1"), behind.at("198.51.100.1")}
	for i := range 10 {
		s.want(far[i%2].try("ann@example.com", "guess"), 401, "invalid_credentials")
	}
	for _, delay := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		for _, replica := range far {
			if got := s.want(replica.try("ann@example.com", "guess"), 429, "rate_limited").header.Get("Retry-After"); got != strconv.Itoa(int(delay.Seconds())) {
				t.Errorf("Retry-After = %s, want %s", got, delay)
			}
		}
		s.advance(delay)
		s.want(far[1].try("ann@example.com", "guess"), 401, "invalid_credentials")
	}
	for _, replica := range far {
		if err := replica.refusals.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.occurrences(event.UserLoginFailed{}); n != 10+3*2+3 {
		t.Errorf("%d failures were recorded, want those of wrong passwords", n)
	}
}

// limited returns a change of the configuration that sets limits of the store.
func limited(limits account.Limits) func(*account.Config) {
	return func(cfg *account.Config) { cfg.Store.(*store.Store).Limits = limits }
}

// SEC-99: a reset link makes its network known and clears the failed attempts, so its owner
// signs in at once.
func TestSEC99OwnerAfterAReset(t *testing.T) {
	t.Parallel()
	s := newService(t, limited(account.Limits{ConsecutiveFailures: 12}))
	s.at("192.0.2.1").signup("ann@example.com")
	stranger, owner := s.at("198.51.100.1"), s.at("203.0.113.7")
	for range 10 {
		s.want(stranger.try("ann@example.com", "guess"), 401, "invalid_credentials")
	}
	s.want(owner.try("ann@example.com", goodPassword), 429, "rate_limited")
	owner.forgot("ann@example.com")
	link := s.link(event.UserResetLinkIssued{}, "ann@example.com", 1)
	s.want(owner.call("POST", "/reset-password", "", fields{"token": link, "newPassword": otherPassword}), 200, "")
	for range 10 { // They go on while the owner opens the form.
		s.want(stranger.try("ann@example.com", "guess"), 401, "invalid_credentials")
	}
	s.want(stranger.try("ann@example.com", "guess"), 429, "rate_limited")
	s.want(owner.try("ann@example.com", otherPassword), 200, "")
}

// device signs in with a device token.
func (s *service) device(email, secret, deviceToken string) answer {
	s.t.Helper()
	return s.call("POST", "/login", "", fields{"email": email, "password": secret, "deviceToken": deviceToken})
}

// SEC-99: attempts with a device token count apart: strangers do not lock its owner out of a
// new network, and a thief of the token gains no more than its own attempts.
func TestSEC99DeviceToken(t *testing.T) {
	t.Parallel()
	s := newService(t)
	signedUp := s.at("192.0.2.1").signup("ann@example.com").Data.Tokens
	token := s.want(s.at("192.0.2.1").device("ann@example.com", goodPassword, signedUp.DeviceToken), 200, "").Data.Tokens.DeviceToken
	bobs := s.signup("bob@example.com").Data.Tokens.DeviceToken
	stranger, away := s.at("198.51.100.1"), s.at("203.0.113.7")
	for range 10 {
		s.want(stranger.try("ann@example.com", "guess"), 401, "invalid_credentials")
	}
	for _, invalid := range []string{"", bobs, token + "x", "s1.AAAA", signedUp.RefreshToken} {
		s.want(away.device("ann@example.com", goodPassword, invalid), 429, "rate_limited")
	}
	s.want(away.device("ann@example.com", goodPassword, token), 200, "")

	// The tokens of one device share a count.
	thief := s.at("203.0.113.9")
	for i := range 10 {
		s.want(thief.device("ann@example.com", "guess", []string{token, signedUp.DeviceToken}[i%2]), 401, "invalid_credentials")
	}
	s.want(thief.device("ann@example.com", "guess", token), 429, "rate_limited")
	s.want(s.at("192.0.2.1").try("ann@example.com", goodPassword), 200, "")

	s.advance(90 * 24 * time.Hour) // The token expires.
	for range 10 {
		stranger.try("ann@example.com", "guess")
	}
	s.want(away.device("ann@example.com", goodPassword, token), 200, "") // Its network is known meanwhile.
	s.want(s.at("203.0.113.11").device("ann@example.com", goodPassword, token), 429, "rate_limited")
}

// SEC-99: a new password ends the device tokens that were issued before.
func TestSEC99DeviceTokensEnd(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.at("192.0.2.1").signup("ann@example.com").Data.Tokens
	s.advance(time.Second)
	changed := s.want(s.at("192.0.2.1").call("POST", "/change-password", ann.AccessToken, fields{"currentPassword": goodPassword, "newPassword": otherPassword}), 200, "").Data.Tokens
	for range 10 {
		s.want(s.at("198.51.100.1").try("ann@example.com", "guess"), 401, "invalid_credentials")
	}
	s.want(s.at("203.0.113.7").device("ann@example.com", otherPassword, ann.DeviceToken), 429, "rate_limited")
	s.want(s.at("203.0.113.7").device("ann@example.com", otherPassword, changed.DeviceToken), 200, "")
	s.advance(time.Second)
	s.forgot("ann@example.com")
	s.want(s.call("POST", "/reset-password", "", fields{"token": s.link(event.UserResetLinkIssued{}, "ann@example.com", 1), "newPassword": goodPassword}), 200, "")
	for range 10 {
		s.want(s.at("198.51.100.1").try("ann@example.com", "guess"), 401, "invalid_credentials")
	}
	s.want(s.at("203.0.113.8").device("ann@example.com", goodPassword, changed.DeviceToken), 429, "rate_limited")
}

// SEC-99: the code after the password counts for the device as well.
func TestSEC99DeviceTokenWithACode(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.at("192.0.2.1").signup("ann@example.com").Data.Tokens
	_, secret, _ := s.enrol(ann.AccessToken)
	stranger, away := s.at("198.51.100.1"), s.at("203.0.113.7")
	for range 2 { // who knows the password
		in := stranger.login("ann@example.com").Data
		for range 5 {
			s.want(stranger.challenge(in.MFAToken, "000000"), 401, "mfa_code_invalid")
		}
	}
	in := s.want(away.device("ann@example.com", goodPassword, ann.DeviceToken), 200, "").Data
	s.want(away.challenge(in.MFAToken, s.code(secret)), 429, "rate_limited")
	answer := fields{"mfaToken": in.MFAToken, "code": s.code(secret), "deviceToken": ann.DeviceToken}
	if got := s.want(away.call("POST", "/mfa/challenge", "", answer), 200, "").Data.Tokens; got.DeviceToken == "" {
		t.Error("the sign-in returned no device token")
	}
}

// SEC-100: after so many failures in a row, from however many networks, only networks and
// devices of the owner can sign in, until the owner uses a reset link. Its address need not
// have an account, and the owner is told once.
func TestSEC100ConsecutiveFailures(t *testing.T) {
	t.Parallel()
	const most = 25
	s := newService(t, limited(account.Limits{ConsecutiveFailures: most}))
	home := s.at("192.0.2.1")
	ann := home.signup("ann@example.com").Data.Tokens
	guess := func(email string, i int) answer {
		return s.at(fmt.Sprintf("198.51.%d.1", i)).try(email, "guess")
	}
	for _, email := range []string{"ann@example.com", "nobody@example.com"} {
		for i := range most {
			s.want(guess(email, i), 401, "invalid_credentials")
			s.advance(15 * time.Minute)
		}
	}
	s.advance(25 * time.Hour) // Unlike a delay, this does not pass.
	for _, email := range []string{"ann@example.com", "nobody@example.com"} {
		s.want(guess(email, 0), 403, "password_reset_required")
		s.want(s.at("203.0.113.7").try(email, goodPassword), 403, "password_reset_required")
	}
	s.wantServed()
	s.wantCount(event.Email, event.UserSignInLimited{}, 1)
	away := s.at("203.0.113.7")
	away.forgot("ann@example.com")
	reset := s.link(event.UserResetLinkIssued{}, "ann@example.com", 1)
	s.want(away.call("POST", "/reset-password", "", fields{"token": reset, "newPassword": otherPassword}), 200, "")
	s.want(s.at("203.0.113.8").try("ann@example.com", otherPassword), 200, "")
	s.want(home.try("ann@example.com", otherPassword), 200, "")

	for i := range most {
		s.want(guess("ann@example.com", i), 401, "invalid_credentials")
		s.advance(15 * time.Minute)
	}
	s.want(guess("ann@example.com", 0), 403, "password_reset_required")
	s.want(s.at("203.0.113.9").device("ann@example.com", otherPassword, ann.DeviceToken), 403, "password_reset_required") // Its password is old.
	s.want(home.try("ann@example.com", otherPassword), 200, "")
	s.want(guess("ann@example.com", 0), 401, "invalid_credentials")
}

// SEC-100: who guesses slowly gets no more attempts. Few failures on an address without an
// account are forgotten, so that the table does not grow with made-up addresses.
func TestSEC100SlowGuesses(t *testing.T) {
	t.Parallel()
	const most = 25
	s := newService(t, limited(account.Limits{ConsecutiveFailures: most}))
	rows := store.New(s.db, outbox.New("auth-service"), s.time)
	s.at("192.0.2.1").signup("ann@example.com")
	for i := range most {
		for _, email := range []string{"ann@example.com", "nobody@example.com"} {
			s.want(s.at(fmt.Sprintf("198.51.%d.1", i)).try(email, "guess"), 401, "invalid_credentials")
		}
		if i%9 == 8 {
			s.advance(25 * time.Hour)
			if err := rows.Sweep(t.Context(), s.time()); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.want(s.at("203.0.113.7").try("ann@example.com", goodPassword), 403, "password_reset_required")
	s.want(s.at("203.0.113.7").try("nobody@example.com", "guess"), 401, "invalid_credentials")
}
