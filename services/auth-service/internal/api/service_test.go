package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/api"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
	"github.com/headgate/headgate/services/auth-service/internal/password"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
	"github.com/headgate/headgate/services/auth-service/internal/store"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const (
	goodPassword = "correct horse battery"
	base         = "/api/v1/auth"
	brand        = `Acme "Ü:+"`
	secret       = "0123456789abcdefghijklmnopqrstuv-tests"
)

// cheap are costs at which tests can hash many passwords.
var cheap = password.Params{MemoryKiB: 64, Passes: 1, Threads: 1}

// service is auth-service over HTTP, with a clock that the test advances.
type service struct {
	*httptest.Server
	t        *testing.T
	db       *postgres.Pool
	sealer   *event.Sealer
	accounts *account.Accounts
	keyring  *signing.Keyring
	refusals *outbox.Refusals

	headers map[string]string // of every request

	clock func() time.Time // of another instance, if this one has none

	mu  sync.Mutex
	now time.Time
}

// with returns the same service for a client that sends a header.
func (s *service) with(name, value string) *service {
	headers := maps.Clone(s.headers)
	if headers == nil {
		headers = map[string]string{}
	}
	headers[name] = value
	return &service{Server: s.Server, t: s.t, db: s.db, sealer: s.sealer, accounts: s.accounts, keyring: s.keyring, refusals: s.refusals, headers: headers, clock: s.time}
}

func newService(t *testing.T, changes ...func(*account.Config)) *service {
	t.Helper()
	s := &service{t: t, db: testkit.Database(t, outbox.Schema(), store.Schema()), now: time.Now()}
	var err error
	s.sealer = testkit.Sealer(t, secret)
	if s.keyring, err = signing.OpenKeyring(t.Context(), store.NewKeys(s.db, outbox.New("auth-service"), s.sealer), s.time); err != nil {
		t.Fatal(err)
	}
	s.start(changes)
	return s
}

// instance returns another instance of the service on the same database. It shares the
// clock that the test advances.
func (s *service) instance(changes ...func(*account.Config)) *service {
	s.t.Helper()
	other := &service{t: s.t, db: s.db, sealer: s.sealer, keyring: s.keyring, clock: s.time}
	other.start(changes)
	return other
}

func (s *service) start(changes []func(*account.Config)) {
	t := s.t
	t.Helper()
	box := outbox.New("auth-service")
	s.refusals = outbox.NewRefusals(box, s.db, testkit.Log(t), s.time)
	rows := store.New(s.db, box, s.time)
	issuer := signing.NewIssuer(testkit.Expected, s.keyring, testkit.Keys(t, secret+"-refresh"), 15*time.Minute)
	revocations := token.NewRevocations(rows.Revocations, testkit.Log(t), s.time)
	testkit.Run(t, revocations)
	passkeys, err := factor.NewWebAuthn(factor.RelyingParty{ID: "localhost", Name: "Acme", Origins: factor.Origins{"http://localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := account.Config{
		Brand:    brand,
		Passkeys: passkeys,
		Store:    rows, Revocations: revocations, Hasher: password.NewHasher(password.Config{Params: cheap, Concurrency: 2, Queue: 1000}), Issuer: issuer, LinkSealer: s.sealer, AtRest: s.sealer, Count: s.refusals.Record, Fingerprints: testkit.Keys(t, secret),
		Lifetimes: account.Lifetimes{
			RefreshIdle: 24 * time.Hour, Session: 72 * time.Hour,
			RefreshGrace: 10 * time.Second, Verification: time.Hour, Reset: 30 * time.Minute, Reauth: 15 * time.Minute,
		},
		PasswordMinLength: 8, Now: s.time, Log: testkit.Log(t), Mode: account.SignUpOpen,
	}
	for _, change := range changes {
		change(&cfg)
	}
	s.accounts = account.New(cfg)
	testkit.Run(t, s.accounts)
	s.Server = httptest.NewServer(web.NewRouter(api.Routes(s.accounts, s.keyring, api.Site{Brand: brand, Issuer: testkit.Expected.Issuer, BaseURL: "http://localhost"}), web.Options{
		Auth: token.NewVerifier(s.keyring, revocations, testkit.Expected, s.time), Now: s.time, Log: testkit.Log(t), Metrics: prometheus.NewRegistry(),
		TrustedProxies: web.Prefixes{netip.MustParsePrefix("127.0.0.0/8")},
		Refused:        s.refusals.Refused, Read: box.Reads(s.db),
	}))
	t.Cleanup(s.Close)
}

func (s *service) time() time.Time {
	if s.clock != nil {
		return s.clock()
	}
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
	AccessToken, TokenType, RefreshToken, SessionID, DeviceToken string
	ExpiresIn                                                    int
	RefreshExpiresAt                                             time.Time
}

type user struct {
	ID, Email, Name, Role, Status string
	EmailVerified, MFAEnabled     bool
	CreatedAt, UpdatedAt          time.Time
	DeleteAt                      time.Time
}

type answer struct {
	status  int
	header  http.Header
	Success bool
	Code    string
	Errors  []struct{ Field, Code string }
	Data    struct {
		User    user
		Tokens  tokens
		Revoked int

		DeleteAt time.Time

		Status, MFAToken, FactorID, Secret, OTPAuthURL, Proof string

		PasskeyToken  string
		Options       json.RawMessage
		ExpiresIn     int
		RecoveryCodes []string
		Factors       json.RawMessage

		SessionsEnded             int
		Passkeys, RemovedPasskeys []struct{ ID, Name string }
	}
	Meta    struct{ NextCursor string }
	Account user   // if data is an account
	Users   []user // if data is a list of accounts
	List    []struct {
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
	for name, value := range s.headers {
		req.Header.Set(name, value)
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

// call sends JSON and decodes the envelope.
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
	var raw struct {
		Data json.RawMessage
		Meta struct{ NextCursor string }
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		s.t.Fatalf("%s %s: %v in %s", method, path, err, data)
	}
	if strings.HasPrefix(string(raw.Data), "[") {
		a.Meta = raw.Meta
		if err := errors.Join(json.Unmarshal(raw.Data, &a.List), json.Unmarshal(raw.Data, &a.Users)); err != nil {
			s.t.Fatalf("%v in %s", err, data)
		}
		return a
	}
	if raw.Data != nil {
		if err := json.Unmarshal(raw.Data, &a.Account); err != nil {
			s.t.Fatalf("%v in %s", err, data)
		}
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

// events returns the events of a topic in the outbox, in order.
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

// replica returns the keyring of another process.
func (s *service) replica() *signing.Keyring {
	s.t.Helper()
	keyring, err := signing.OpenKeyring(s.t.Context(), store.NewKeys(s.db, outbox.New("auth-service"), s.sealer), s.time)
	if err != nil {
		s.t.Fatal(err)
	}
	return keyring
}

// rows returns how many rows each table has.
func (s *service) rows() map[string]int {
	s.t.Helper()
	const query = `
		SELECT table_name, (xpath('/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM %I', table_name), false, true, '')))[1]::text::int
		FROM information_schema.tables
		WHERE table_schema = 'public'`
	rows, err := s.db.Query(context.Background(), query)
	if err != nil {
		s.t.Fatal(err)
	}
	type count struct {
		Table string
		Rows  int
	}
	counts, err := pgx.CollectRows(rows, pgx.RowToStructByPos[count])
	if err != nil {
		s.t.Fatal(err)
	}
	of := map[string]int{}
	for _, c := range counts {
		of[c.Table] = c.Rows
	}
	return of
}
