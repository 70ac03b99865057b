package api_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/password"
)

func TestLogin(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.signup("ann@example.com")
	a := s.want(s.call("POST", "/login", "", fields{"email": "ANN@example.com", "password": goodPassword, "deviceName": "Laptop"}), 200, "")
	if list := s.call("GET", "/sessions", a.Data.Tokens.AccessToken, nil).List; len(list) != 2 || list[0].DeviceName != "Laptop" || !list[0].Current || list[1].Current {
		t.Errorf("sessions = %+v", list)
	}
	for name, in := range map[string]fields{
		"wrong password": {"email": "ann@example.com", "password": "wrong password"},
		"unknown":        {"email": "nobody@example.com", "password": goodPassword},
		"SEC-22 longer":  {"email": "ann@example.com", "password": goodPassword + "x"},
	} {
		if a := s.call("POST", "/login", "", in); a.status != 401 || a.Code != "invalid_credentials" {
			t.Errorf("%s = %d %s", name, a.status, a.Code)
		}
	}
	if _, err := s.db.Exec(t.Context(), `UPDATE accounts SET status = 'disabled'`); err != nil {
		t.Fatal(err)
	}
	s.want(s.call("POST", "/login", "", fields{"email": "ann@example.com", "password": goodPassword}), 403, "account_disabled")
	s.want(s.call("POST", "/login", "", fields{"email": "ann@example.com", "password": "wrong password"}), 401, "invalid_credentials")
	s.want(s.refresh(a.Data.Tokens.RefreshToken), 401, "session_revoked")

	got := names(s.events(event.Audit))
	want := []string{"user.signed_up", "user.logged_in"}
	for range 5 {
		want = append(want, "user.login_failed")
	}
	want = append(want, "request.refused") // of the refresh
	if !slices.Equal(got, want) {
		t.Errorf("audit = %v, want %v", got, want)
	}
}

// SEC-26: an unknown address and a wrong password get the same answer in the same time.
// The times are measured in random order and compared by rank (Mann-Whitney).
func TestSEC26LoginRevealsNothing(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) {
		cfg.Hasher = password.NewHasher(password.Config{Params: password.Params{MemoryKiB: 1024, Passes: 2, Threads: 1}, Concurrency: 1, Queue: 1000})
	})
	s.signup("ann@example.com")
	kinds := []string{"ann@example.com", "nobody@example.com"}
	times := map[string][]time.Duration{}
	bodies := map[string]string{}
	for range 200 {
		s.advance(25 * time.Hour) // Clear the failed attempts.
		rand.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
		for _, email := range kinds {
			started := time.Now()
			status, _, body := s.do("POST", base+"/login", "", "application/json", fmt.Sprintf(`{"email":%q,"password":"not the password"}`, email))
			times[email] = append(times[email], time.Since(started))
			text, _, _ := strings.Cut(string(body), `"requestId"`)
			bodies[email] = strconv.Itoa(status) + text
		}
	}
	ann, nobody := kinds[0], kinds[1]
	if bodies[ann] != bodies[nobody] {
		t.Errorf("answers differ: %s, %s", bodies[ann], bodies[nobody])
	}
	difference := (median(times[ann]) - median(times[nobody])).Abs()
	if z := rankSum(times[ann], times[nobody]); math.Abs(z) > 4 && difference > median(times[nobody])/20 {
		t.Errorf("the medians are %s apart, of %s, z = %.1f", difference, median(times[nobody]), z)
	}
}

func median(times []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[len(sorted)/2]
}

// rankSum returns how many standard deviations the ranks of a are from those expected if
// a and b had the same distribution (Mann-Whitney U).
func rankSum(a, b []time.Duration) float64 {
	type sample struct {
		time time.Duration
		of   int
	}
	var all []sample
	for _, t := range a {
		all = append(all, sample{t, 0})
	}
	for _, t := range b {
		all = append(all, sample{t, 1})
	}
	slices.SortFunc(all, func(x, y sample) int { return int(x.time - y.time) })
	sum := 0.0
	for rank, s := range all {
		if s.of == 0 {
			sum += float64(rank + 1)
		}
	}
	n, m := float64(len(a)), float64(len(b))
	u := sum - n*(n+1)/2
	return (u - n*m/2) / math.Sqrt(n*m*(n+m+1)/12)
}

// during changes an account while a request is in progress: after it read the account and
// before it locks it.
func (s *service) during(change, accountID string, request func() answer) answer {
	s.t.Helper()
	tx, err := s.db.Begin(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	defer tx.Rollback(context.Background()) //nolint:errcheck // It has committed, or the test has failed.
	if _, err := tx.Exec(s.t.Context(), `UPDATE accounts SET `+change+` WHERE id = $1`, accountID); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan answer, 1)
	go func() { ended <- request() }()
	for waits := false; !waits; {
		const query = `
			SELECT EXISTS (
				SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
				WHERE NOT l.granted AND a.datname = current_database())`
		if err := s.db.QueryRow(s.t.Context(), query).Scan(&waits); err != nil {
			s.t.Fatal(err)
		}
		select {
		case got := <-ended:
			s.t.Fatalf("the request did not wait: %d %s", got.status, got.Code)
		case <-time.After(time.Millisecond):
		}
	}
	if err := tx.Commit(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return <-ended
}

// A login gets the role and status that the account has at its end, even if they change
// while the password is checked (SEC-14, SEC-51).
func TestSEC14LoginDuringAChange(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.admin()
	email := newEmail()
	eve, err := s.accounts.CreateAdmin(t.Context(), account.SignUp{Email: email, Password: goodPassword, Name: "Eve"})
	if err != nil {
		t.Fatal(err)
	}
	in := s.want(s.during(`role = 'user'`, eve.ID, func() answer { return s.try(email, goodPassword) }), 200, "").Data
	s.want(s.call("GET", "/users", in.Tokens.AccessToken, nil), 403, "forbidden")

	ann := s.signup("ann@example.com").Data.User
	in = s.during(`mfa_enabled = true`, ann.ID, func() answer { return s.try("ann@example.com", goodPassword) }).Data
	if in.Status != "mfa_required" || in.Tokens.AccessToken != "" {
		t.Errorf("login while a second factor is added = %+v, want a request for it", in)
	}
	got := s.during(`status = 'disabled'`, eve.ID, func() answer { return s.try(email, goodPassword) })
	s.want(got, 403, "account_disabled")
}

// In strict mode a login reveals as little as a sign-up (SEC-27).
func TestSEC27StrictLogin(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) { cfg.Mode, cfg.RequireVerified = account.SignUpStrict, true })
	if _, err := s.accounts.CreateAdmin(t.Context(), account.SignUp{Email: "taken@example.com", Password: goodPassword, Name: "x"}); err != nil {
		t.Fatal(err)
	}
	for _, email := range []string{"taken@example.com", "free@example.com"} {
		s.want(s.call("POST", "/signup", "", fields{"email": email, "password": otherPassword, "name": "Eve"}), 202, "")
		s.wantServed()
		s.want(s.try(email, otherPassword), 401, "invalid_credentials")
	}
	s.verify("free@example.com", 1, otherPassword)
	s.want(s.try("free@example.com", otherPassword), 200, "")
}

// Old hashes work, whatever the algorithm of new ones is.
func TestOldHashes(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("correct horse battery ", 5)
	hasher := password.NewHasher(password.Config{Params: cheap, Concurrency: 1, Queue: 1})
	argon, err := hasher.Hash(t.Context(), long)
	if err != nil {
		t.Fatal(err)
	}
	typed := "pass\u00b2word\u2026of old" // NFKC changes these characters.
	crypt, err := bcrypt.GenerateFromPassword([]byte(typed), 4)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		bcryptCost     int
		hash, password string
	}{
		"too long for bcrypt":    {10, argon, long},
		"hashed as it was typed": {0, string(crypt), typed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, func(cfg *account.Config) {
				cfg.Hasher = password.NewHasher(password.Config{Params: cheap, BcryptCost: tc.bcryptCost, Concurrency: 2, Queue: 10})
			})
			if _, err := s.accounts.Import(t.Context(), []account.Imported{{Email: "ann@example.com", Name: "Ann", PasswordHash: tc.hash}}); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				s.want(s.try("ann@example.com", tc.password), 200, "")
			}
		})
	}
}

func TestVerifiedEmailIsRequired(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) { cfg.RequireVerified = true })
	if in := s.signup("ann@example.com").Data; in.Tokens.AccessToken != "" || in.User.ID == "" {
		t.Errorf("sign-up = %+v, want no tokens", in)
	}
	in := fields{"email": "ann@example.com", "password": goodPassword}
	s.want(s.call("POST", "/login", "", in), 403, "email_not_verified")
	s.want(s.call("POST", "/login", "", fields{"email": "ann@example.com", "password": otherPassword}), 401, "invalid_credentials")
	s.verify("ann@example.com", 1, goodPassword)
	s.want(s.call("POST", "/login", "", in), 200, "")
}

// SEC-18: a client cannot choose its session. Each login, with and without a second
// factor, creates a new one.
func TestSEC18SessionFixation(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.Tokens
	seen := []string{ann.SessionID}
	fixed := s.with("Cookie", "sessionId="+ann.SessionID+"; sid="+ann.SessionID).with("X-Session-Id", ann.SessionID)
	for range 2 {
		in := fixed.want(fixed.try("ann@example.com", goodPassword), 200, "")
		if cookies := in.header.Values("Set-Cookie"); len(cookies) > 0 {
			t.Errorf("cookies = %v", cookies)
		}
		seen = append(seen, in.Data.Tokens.SessionID)
	}
	body := fields{"email": "ann@example.com", "password": goodPassword, "sessionId": ann.SessionID}
	s.want(s.call("POST", "/login", "", body), 400, "validation_failed")
	_, secret, _ := s.enrol(ann.AccessToken)
	s.advance(time.Minute)
	waiting := fixed.try("ann@example.com", goodPassword).Data
	seen = append(seen, fixed.want(fixed.challenge(waiting.MFAToken, s.code(secret)), 200, "").Data.Tokens.SessionID)
	slices.Sort(seen)
	if distinct := slices.Compact(seen); len(distinct) != 4 || distinct[0] == "" {
		t.Errorf("sessions = %v, want 4", distinct)
	}
}

// SEC-24: stored hashes have the cost that OWASP recommends.
func TestSEC24HashAtRest(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) {
		cfg.Hasher = password.NewHasher(password.Config{Params: password.Standard, Concurrency: 1, Queue: 10})
	})
	s.signup("ann@example.com")
	var hash string
	if err := s.db.QueryRow(t.Context(), `SELECT password_hash FROM accounts`).Scan(&hash); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("hash = %s", hash)
	}
}
