package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/api"
	"github.com/headgate/headgate/services/auth-service/internal/password"
	"github.com/headgate/headgate/services/auth-service/internal/store"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const (
	goodPassword = "correct horse battery"
	base         = "/api/v1/auth"
	secret       = "0123456789abcdefghijklmnopqrstuv-tests"
)

// cheap are costs that let tests make many hashes.
var cheap = password.Params{MemoryKiB: 64, Passes: 1, Threads: 1}

// service is auth-service over HTTP, with a clock that the test moves.
type service struct {
	*httptest.Server
	t        *testing.T
	db       *pgxpool.Pool
	sealer   *event.Sealer
	accounts *account.Accounts

	mu  sync.Mutex
	now time.Time
}

func newService(t *testing.T) *service {
	t.Helper()
	s := &service{t: t, db: testkit.Database(t, outbox.Schema(), store.Schema()), now: time.Now()}
	var err error
	if s.sealer, err = event.NewSealer(secret); err != nil {
		t.Fatal(err)
	}
	rows := store.New(s.db, outbox.New("auth-service"))
	keys, err := rows.SigningKeys(t.Context(), s.sealer)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := account.NewIssuer(testkit.Expected, keys, secret+"-refresh")
	if err != nil {
		t.Fatal(err)
	}
	s.accounts = account.New(account.Config{
		Store: rows, Hasher: password.NewHasher(cheap, 2, 1000), Issuer: issuer, Sealer: s.sealer,
		Lifetimes: account.Lifetimes{
			Access: 15 * time.Minute, RefreshIdle: 24 * time.Hour, Session: 72 * time.Hour,
			RefreshGrace: 10 * time.Second, Verification: time.Hour,
		},
		PasswordMinLength: 8, Now: s.time,
	})
	jwks, err := issuer.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewServer(web.NewRouter(api.Routes(s.accounts, jwks), web.Options{
		Auth: token.NewVerifier(issuer, testkit.Expected, s.time), Log: testkit.Log(t), Metrics: prometheus.NewRegistry(),
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *service) time() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *service) advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

type tokens struct {
	AccessToken, TokenType, RefreshToken, SessionID string
	ExpiresIn                                       int
	RefreshExpiresAt                                time.Time
}

type user struct {
	ID, Email, Name, Role, Status string
	EmailVerified, MFAEnabled     bool
	CreatedAt, UpdatedAt          time.Time
}

type answer struct {
	status  int
	header  http.Header
	Success bool
	Code    string
	Errors  []struct{ Field, Code string }
	Data    struct {
		User   user
		Tokens tokens
	}
	List []struct {
		ID, UserAgent, DeviceName, IP string
		Current                       bool
	}
}

func (s *service) do(method, path, bearer, contentType, body string) (int, http.Header, []byte) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, res.Header, data
}

// call sends JSON and reads the envelope.
func (s *service) call(method, path, bearer string, body any) answer {
	s.t.Helper()
	text, contentType := "", ""
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			s.t.Fatal(err)
		}
		text, contentType = string(data), "application/json"
	}
	status, header, data := s.do(method, base+path, bearer, contentType, text)
	a := answer{status: status, header: header}
	if strings.HasSuffix(path, "sessions") && status == http.StatusOK {
		var list struct{ Data json.RawMessage }
		if err := errors.Join(json.Unmarshal(data, &list), json.Unmarshal(list.Data, &a.List)); err != nil {
			s.t.Fatalf("%v in %s", err, data)
		}
		return a
	}
	if err := json.Unmarshal(data, &a); err != nil {
		s.t.Fatalf("%s %s: %v in %s", method, path, err, data)
	}
	return a
}

func (s *service) want(a answer, status int, code string) answer {
	s.t.Helper()
	if a.status != status || a.Code != code {
		s.t.Fatalf("= %d %q %v, want %d %q", a.status, a.Code, a.Errors, status, code)
	}
	return a
}

type fields = map[string]any

func (s *service) signup(email string) answer {
	s.t.Helper()
	return s.want(s.call("POST", "/signup", "", fields{"email": email, "password": goodPassword, "name": "Ann"}), http.StatusCreated, "")
}

func (s *service) refresh(refreshToken string) answer {
	s.t.Helper()
	return s.call("POST", "/refresh", "", fields{"refreshToken": refreshToken})
}

// events returns what the outbox holds, in order, without the rows of other topics.
func (s *service) events(topic event.Topic) []event.Event {
	s.t.Helper()
	rows, err := s.db.Query(context.Background(), `SELECT payload FROM outbox WHERE topic = $1 ORDER BY id`, string(topic))
	if err != nil {
		s.t.Fatal(err)
	}
	events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (event.Event, error) {
		var payload []byte
		if err := row.Scan(&payload); err != nil {
			return event.Event{}, err
		}
		return event.Parse(payload)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return events
}

func names(events []event.Event) []string {
	var list []string
	for _, e := range events {
		list = append(list, e.Type())
	}
	return list
}

func TestSignup(t *testing.T) {
	t.Parallel()
	s := newService(t)
	a := s.signup(" Ann@Example.COM ")
	u := a.Data.User
	if u.Email != "Ann@example.com" || u.Name != "Ann" || u.Role != "user" || u.Status != "active" || u.EmailVerified || uuid.Validate(u.ID) != nil {
		t.Errorf("user = %+v", u)
	}
	tk := a.Data.Tokens
	if tk.TokenType != "Bearer" || tk.ExpiresIn != 900 || tk.RefreshToken == "" || uuid.Validate(tk.SessionID) != nil {
		t.Errorf("tokens = %+v", tk)
	}
	if a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control = %q", a.header.Get("Cache-Control"))
	}
	if got := s.call("GET", "/sessions", tk.AccessToken, nil); got.status != 200 || len(got.List) != 1 || !got.List[0].Current || got.List[0].ID != tk.SessionID {
		t.Errorf("sessions = %+v", got)
	}
	s.want(s.call("POST", "/signup", "", fields{"email": "ann@example.com", "password": goodPassword, "name": "B"}), http.StatusConflict, "email_taken")

	if got, want := names(s.events(event.Audit)), []string{"user.signed_up"}; !slices.Equal(got, want) {
		t.Errorf("audit events = %v, want %v", got, want)
	}
	signedUp := s.events(event.User)[0]
	if signedUp.Subject != u.ID || signedUp.Actor.ID != u.ID || signedUp.RequestID != a.header.Get("X-Request-Id") || signedUp.IP != "127.0.0.1" {
		t.Errorf("event = %+v", signedUp)
	}
}

// TestNothingSecretIsStoredOrSent is SEC-65: the outbox is read by Redis, the
// audit log and whoever can look at them.
func TestNothingSecretIsStoredOrSent(t *testing.T) {
	t.Parallel()
	s := newService(t)
	a := s.signup("ann@example.com")
	link := s.verificationLink(a.Data.User.ID)
	s.want(s.call("POST", "/login", "", fields{"email": "ann@example.com", "password": "wrong but long"}), 401, "invalid_credentials")
	var dump string
	err := s.db.QueryRow(t.Context(), `
		SELECT (SELECT string_agg(payload::text, '') FROM outbox) ||
			(SELECT string_agg(t::text, '') FROM one_time_tokens t) ||
			(SELECT string_agg(s::text, '') FROM sessions s) ||
			(SELECT string_agg(a::text, '') FROM accounts a) ||
			(SELECT string_agg(k::text, '') FROM signing_keys k)`).Scan(&dump)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{goodPassword, "wrong but long", a.Data.Tokens.AccessToken, a.Data.Tokens.RefreshToken, link, "PRIVATE KEY"} {
		if strings.Contains(dump, secret) {
			t.Errorf("the database holds %q in the clear", secret)
		}
	}
}

func TestSignupRefuses(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for name, tc := range map[string]struct {
		change      fields
		code, field string
	}{
		"no email":                   {fields{"email": ""}, "validation_failed", "email"},
		"no at":                      {fields{"email": "example.com"}, "validation_failed", "email"},
		"two ats":                    {fields{"email": "a@b@example.com"}, "validation_failed", "email"},
		"quoted local part":          {fields{"email": `"a b"@example.com`}, "validation_failed", "email"},
		"SEC-23 NUL in email":        {fields{"email": "a\x00b@example.com"}, "validation_failed", "email"},
		"SEC-62 header injection":    {fields{"email": "a@example.com\r\nBcc: b@example.com"}, "validation_failed", "email"},
		"SEC-25 Kelvin sign":         {fields{"email": "mi\u212ae@example.com"}, "validation_failed", "email"},
		"no dot in domain":           {fields{"email": "a@localhost"}, "validation_failed", "email"},
		"long email":                 {fields{"email": strings.Repeat("a", 250) + "@example.com"}, "validation_failed", "email"},
		"no password":                {fields{"password": ""}, "validation_failed", "password"},
		"short password":             {fields{"password": "abc1234"}, "validation_failed", "password"},
		"short in code points":       {fields{"password": "äöüäöü7"}, "validation_failed", "password"},
		"SEC-23 NUL in password":     {fields{"password": "abcdefgh\x00ijk"}, "validation_failed", "password"},
		"SEC-22 long password":       {fields{"password": strings.Repeat("ab", 513)}, "validation_failed", "password"},
		"common password":            {fields{"password": "Password1"}, "weak_password", ""},
		"repeated password":          {fields{"password": "aaaaaaaaaaaa"}, "weak_password", ""},
		"password is the address":    {fields{"password": "Ann@example.com"}, "weak_password", ""},
		"no name":                    {fields{"name": " "}, "validation_failed", "name"},
		"long name":                  {fields{"name": strings.Repeat("ä", 101)}, "validation_failed", "name"},
		"name with a line break":     {fields{"name": "Ann\r\nBcc: x"}, "validation_failed", "name"},
		"SEC-49 role":                {fields{"role": "admin"}, "validation_failed", "role"},
		"SEC-49 email verified":      {fields{"emailVerified": true}, "validation_failed", "emailVerified"},
		"password of the wrong type": {fields{"password": 12345678}, "validation_failed", "password"},
		"email of the wrong type":    {fields{"email": []string{"a@example.com"}}, "validation_failed", "email"},
	} {
		t.Run(name, func(t *testing.T) {
			body := fields{"email": "ann@example.com", "password": goodPassword, "name": "Ann"}
			maps.Copy(body, tc.change)
			a := s.call("POST", "/signup", "", body)
			if a.status != 400 || a.Code != tc.code || tc.field != "" && (len(a.Errors) == 0 || a.Errors[0].Field != tc.field) {
				t.Errorf("= %d %q %+v, want 400 %q for %q", a.status, a.Code, a.Errors, tc.code, tc.field)
			}
		})
	}
	if n := len(s.events(event.Audit)); n != 0 {
		t.Errorf("%d events of sign-ups that were refused", n)
	}
}

func TestTheSameAddressInAnotherForm(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.signup("bob@exämple.de")
	for _, same := range []string{"BOB@exämple.de", "bob@xn--exmple-cua.de", "bob@EXÄMPLE.de"} {
		a := s.call("POST", "/signup", "", fields{"email": same, "password": goodPassword, "name": "B"})
		s.want(a, http.StatusConflict, "email_taken")
	}
}

// TestParallelSignups is the heart of SEC-82.
func TestParallelSignups(t *testing.T) {
	t.Parallel()
	s := newService(t)
	codes := make(chan int, 50)
	var wg sync.WaitGroup
	for range cap(codes) {
		wg.Go(func() {
			codes <- s.call("POST", "/signup", "", fields{"email": "ann@example.com", "password": goodPassword, "name": "Ann"}).status
		})
	}
	wg.Wait()
	close(codes)
	count := map[int]int{}
	for code := range codes {
		count[code]++
	}
	if count[201] != 1 || count[409] != 49 {
		t.Errorf("answers = %v, want one 201 and 49 409", count)
	}
	if got := names(s.events(event.Email)); len(got) != 1 {
		t.Errorf("mails = %v", got)
	}
	if got := names(s.events(event.Audit)); len(got) != 1 {
		t.Errorf("audit = %v", got)
	}
}

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
	if !slices.Equal(got, want) {
		t.Errorf("audit = %v, want %v", got, want)
	}
}

// TestRefreshRotation is SEC-15 and SEC-16 in sequence.
func TestRefreshRotation(t *testing.T) {
	t.Parallel()
	s := newService(t)
	r0 := s.signup("ann@example.com").Data.Tokens.RefreshToken
	s.advance(time.Minute)

	rotated := s.want(s.refresh(r0), 200, "")
	r1 := rotated.Data.Tokens.RefreshToken
	if rotated.header.Get("X-Refresh-Outcome") != "rotated" || r1 == r0 {
		t.Fatalf("outcome = %q", rotated.header.Get("X-Refresh-Outcome"))
	}
	s.advance(9 * time.Second)
	replayed := s.want(s.refresh(r0), 200, "")
	if replayed.header.Get("X-Refresh-Outcome") != "replayed" || replayed.Data.Tokens.RefreshToken != r1 {
		t.Errorf("within the grace: outcome %q, the same successor: %t", replayed.header.Get("X-Refresh-Outcome"), replayed.Data.Tokens.RefreshToken == r1)
	}
	r2 := s.want(s.refresh(r1), 200, "").Data.Tokens.RefreshToken
	s.want(s.refresh(r0), 401, "refresh_token_reused") // two generations old, though within 10 s
	s.want(s.refresh(r2), 401, "session_revoked")
	s.want(s.refresh(r0), 401, "session_revoked") // the grace raises nothing from the dead

	got := names(s.events(event.Audit))
	want := []string{"user.signed_up", "session.refreshed", "session.refreshed", "session.refreshed", "session.refresh_reused", "session.revoked"}
	if !slices.Equal(got, want) {
		t.Errorf("audit = %v, want %v", got, want)
	}
	if mails := names(s.events(event.Email)); !slices.Contains(mails, "session.refresh_reused") {
		t.Errorf("the owner is not told: %v", mails)
	}
}

func TestRefreshAfterTheGrace(t *testing.T) {
	t.Parallel()
	s := newService(t)
	r0 := s.signup("ann@example.com").Data.Tokens.RefreshToken
	r1 := s.want(s.refresh(r0), 200, "").Data.Tokens.RefreshToken
	s.advance(11 * time.Second)
	s.want(s.refresh(r0), 401, "refresh_token_reused")
	s.want(s.refresh(r1), 401, "session_revoked")
}

// TestParallelRefreshes is SEC-16: one rotation, everybody gets its successor.
func TestParallelRefreshes(t *testing.T) {
	t.Parallel()
	s := newService(t)
	r0 := s.signup("ann@example.com").Data.Tokens.RefreshToken
	answers := make(chan answer, 20)
	var wg sync.WaitGroup
	for range cap(answers) {
		wg.Go(func() { answers <- s.refresh(r0) })
	}
	wg.Wait()
	close(answers)
	outcomes, successors := map[string]int{}, map[string]bool{}
	for a := range answers {
		outcomes[fmt.Sprint(a.status, a.header.Get("X-Refresh-Outcome"))]++
		successors[a.Data.Tokens.RefreshToken] = true
	}
	if outcomes["200rotated"]+outcomes["200 rotated"] != 1 || len(successors) != 1 {
		t.Errorf("outcomes = %v, %d successors", outcomes, len(successors))
	}
	for successor := range successors {
		s.want(s.refresh(successor), 200, "")
	}
}

func TestRefreshRefuses(t *testing.T) {
	t.Parallel()
	s := newService(t)
	a := s.signup("ann@example.com")
	refreshToken := a.Data.Tokens.RefreshToken
	for name, raw := range map[string]string{
		"junk":                   "junk",
		"SEC-05 an access token": a.Data.Tokens.AccessToken,
		"changed":                refreshToken[:len(refreshToken)-2] + "xx",
		"long":                   strings.Repeat("a", 4<<10),
	} {
		if got := s.refresh(raw); got.status != 401 || got.Code != "refresh_token_invalid" {
			t.Errorf("%s = %d %s", name, got.status, got.Code)
		}
	}
	s.want(s.refresh(""), 400, "validation_failed")
	if got := s.call("GET", "/sessions", refreshToken, nil); got.status != 401 {
		t.Errorf("SEC-05: a refresh token as bearer = %d", got.status)
	}
	s.advance(25 * time.Hour)
	s.want(s.refresh(refreshToken), 401, "refresh_token_expired")
}

// TestSessionsEnd is SEC-12: however often it is refreshed.
func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	s := newService(t)
	refreshToken := s.signup("ann@example.com").Data.Tokens.RefreshToken
	for range 3 {
		s.advance(23 * time.Hour)
		refreshToken = s.want(s.refresh(refreshToken), 200, "").Data.Tokens.RefreshToken
	}
	s.advance(4 * time.Hour)
	s.want(s.refresh(refreshToken), 401, "refresh_token_expired")
}

func TestLogout(t *testing.T) {
	t.Parallel()
	s := newService(t)
	first := s.signup("ann@example.com").Data.Tokens
	second := s.call("POST", "/login", "", fields{"email": "ann@example.com", "password": goodPassword}).Data.Tokens
	stranger := s.signup("eve@example.com").Data.Tokens

	s.want(s.call("POST", "/logout", "", nil), 401, "unauthenticated")
	s.want(s.call("POST", "/logout", first.AccessToken, fields{"refreshToken": stranger.RefreshToken}), 401, "refresh_token_invalid")
	s.want(s.refresh(stranger.RefreshToken), 200, "")
	for range 2 { // It is idempotent.
		s.want(s.call("POST", "/logout", first.AccessToken, fields{"refreshToken": second.RefreshToken}), 200, "")
	}
	s.want(s.refresh(first.RefreshToken), 401, "session_revoked")
	s.want(s.refresh(second.RefreshToken), 401, "session_revoked")
	if got := names(s.events(event.User)); !slices.Equal(got, []string{"user.signed_up", "user.signed_up", "user.logged_out", "user.logged_out"}) {
		t.Errorf("user events = %v", got)
	}
}

// verificationLink opens the token that email-service would put into the mail.
func (s *service) verificationLink(userID string) string {
	s.t.Helper()
	for _, e := range s.events(event.Email) {
		if e.Subject != userID {
			continue
		}
		p, err := event.Decode[event.UserVerificationRequested](e)
		if err != nil {
			continue
		}
		link, err := s.sealer.Open(p.Token, event.VerificationContext(userID))
		if err != nil {
			s.t.Fatal(err)
		}
		return link
	}
	s.t.Fatal("no mail")
	return ""
}

// TestVerifyEmail is SEC-29 for verification links.
func TestVerifyEmail(t *testing.T) {
	t.Parallel()
	s := newService(t)
	link := s.verificationLink(s.signup("ann@example.com").Data.User.ID)
	for range 2 { // Mail scanners follow links.
		status, header, page := s.do("GET", base+"/verify-email?token="+url.QueryEscape(link), "", "", "")
		if status != 200 || !strings.Contains(string(page), `action="/api/v1/auth/verify-email"`) || !strings.Contains(header.Get("Content-Security-Policy"), "form-action 'self'") {
			t.Fatalf("page = %d %v %s", status, header, page)
		}
	}
	answers := make(chan answer, 20)
	var wg sync.WaitGroup
	for range cap(answers) {
		wg.Go(func() { answers <- s.call("POST", "/verify-email", "", fields{"token": link}) })
	}
	wg.Wait()
	close(answers)
	count := map[string]int{}
	for a := range answers {
		count[fmt.Sprintf("%d %s", a.status, a.Code)]++
		if a.status == 200 && !a.Data.User.EmailVerified {
			t.Error("the user is not verified")
		}
	}
	if count["200 "] != 1 || count["400 token_invalid"] != 19 {
		t.Errorf("answers = %v", count)
	}
	s.want(s.call("POST", "/verify-email", "", fields{"token": "unknown"}), 400, "token_invalid")
	if got := names(s.events(event.Audit)); !slices.Equal(got, []string{"user.signed_up", "user.email_verified"}) {
		t.Errorf("audit = %v", got)
	}

	late := s.verificationLink(s.signup("bob@example.com").Data.User.ID)
	s.advance(61 * time.Minute)
	s.want(s.call("POST", "/verify-email", "", fields{"token": late}), http.StatusGone, "token_expired")
}

func TestVerifyEmailWithoutScripts(t *testing.T) {
	t.Parallel()
	s := newService(t)
	link := s.verificationLink(s.signup("ann@example.com").Data.User.ID)
	for _, want := range []struct {
		token, text string
		status      int
	}{{link, "confirmed", 200}, {link, "does not work", 400}, {"", "does not work", 400}} {
		status, header, page := s.do("POST", base+"/verify-email", "", "application/x-www-form-urlencoded", url.Values{"token": {want.token}}.Encode())
		if status != want.status || !strings.Contains(string(page), want.text) || header.Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("= %d %s, want %d with %q", status, page, want.status, want.text)
		}
	}
	status, _, page := s.do("GET", base+`/verify-email?token="><script>alert(1)</script>`, "", "", "")
	if status != 200 || strings.Contains(string(page), "<script>") {
		t.Errorf("page = %d %s", status, page)
	}
}

func TestFirstAdmin(t *testing.T) {
	t.Parallel()
	s := newService(t)
	in := account.SignUp{Email: "root@example.com", Password: goodPassword, Name: "Root"}
	for i, want := range []bool{true, false} {
		if created, err := s.accounts.EnsureAdmin(t.Context(), in); err != nil || created != want {
			t.Errorf("call %d: EnsureAdmin = %t, %v", i+1, created, err)
		}
	}
	a := s.want(s.call("POST", "/login", "", fields{"email": in.Email, "password": goodPassword}), 200, "")
	if a.Data.User.Role != "admin" || !a.Data.User.EmailVerified {
		t.Errorf("user = %+v", a.Data.User)
	}
	if _, err := newService(t).accounts.EnsureAdmin(t.Context(), account.SignUp{Email: in.Email, Password: "password", Name: "Root"}); !errors.Is(err, account.ErrWeakPassword) {
		t.Errorf("EnsureAdmin with a default password = %v", err)
	}
}

func TestSigningKeysSurviveARestart(t *testing.T) {
	t.Parallel()
	s := newService(t)
	_, _, before := s.do("GET", "/.well-known/jwks.json", "", "", "")
	rows := store.New(s.db, outbox.New("auth-service"))
	keys, err := rows.SigningKeys(t.Context(), s.sealer)
	if err != nil || len(keys) != 1 || !strings.Contains(string(before), keys[0].ID) {
		t.Errorf("SigningKeys = %d keys, %v; set was %s", len(keys), err, before)
	}
	other, err := event.NewSealer(strings.Repeat("another key ", 4))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rows.SigningKeys(t.Context(), other); !errors.Is(err, event.ErrSeal) {
		t.Errorf("SigningKeys with another ENCRYPTION_KEY = %v, want ErrSeal", err)
	}
}
