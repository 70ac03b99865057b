package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/http/httptest"
	netmail "net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	gosmtp "github.com/emersion/go-smtp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/email-service/internal/api"
	"github.com/headgate/headgate/services/email-service/internal/mail"
	"github.com/headgate/headgate/services/email-service/internal/smtp"
	"github.com/headgate/headgate/services/email-service/internal/store"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// mailServer is a real SMTP server whose answers a test can script.
type mailServer struct {
	url string

	mu      sync.Mutex
	answer  func(to string) error // to RCPT; nil takes everything
	letters []received
}

type received struct {
	from string
	to   []string
	data string
}

func newMailServer(t *testing.T) *mailServer {
	t.Helper()
	s := &mailServer{}
	server := gosmtp.NewServer(s)
	server.Domain = "localhost"
	server.AllowInsecureAuth = true
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.url = "smtp://" + listener.Addr().String()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); err != nil && !errors.Is(err, gosmtp.ErrServerClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return s
}

func (s *mailServer) NewSession(*gosmtp.Conn) (gosmtp.Session, error) {
	return &dialogue{server: s}, nil
}

func (s *mailServer) script(answer func(to string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *mailServer) to(address string) []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	var mine []received
	for _, l := range s.letters {
		if len(l.to) == 1 && l.to[0] == address {
			mine = append(mine, l)
		}
	}
	return mine
}

type dialogue struct {
	server *mailServer
	letter received
}

func (d *dialogue) Reset()        { d.letter = received{} }
func (d *dialogue) Logout() error { return nil }
func (d *dialogue) Mail(from string, _ *gosmtp.MailOptions) error {
	d.letter.from = from
	return nil
}

func (d *dialogue) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	d.server.mu.Lock()
	answer := d.server.answer
	d.server.mu.Unlock()
	if answer != nil {
		if err := answer(to); err != nil {
			return err
		}
	}
	d.letter.to = append(d.letter.to, to)
	return nil
}

func (d *dialogue) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	d.letter.data = string(data)
	d.server.mu.Lock()
	defer d.server.mu.Unlock()
	d.server.letters = append(d.server.letters, d.letter)
	return nil
}

// service is email-service: its routes over HTTP and its consumers.
type service struct {
	*httptest.Server
	t       *testing.T
	smtp    *mailServer
	issuer  *testkit.Issuer
	redis   *redis.Client
	db      *pgxpool.Pool
	sealer  *event.Sealer
	letters *deadletter.Store
}

const baseURL = "https://id.example.com"

func newService(t *testing.T) *service {
	t.Helper()
	s := &service{
		t: t, smtp: newMailServer(t), issuer: testkit.NewIssuer(t), redis: testkit.Redis(t),
		db: testkit.Database(t, outbox.Schema(), deadletter.Schema(), store.Schema()),
	}
	var err error
	if s.sealer, err = event.NewSealer(strings.Repeat("0123456789", 4)); err != nil {
		t.Fatal(err)
	}
	s.letters = deadletter.New(s.db, time.Now)
	messages := store.New(s.db, outbox.New("email-service"), time.Now)
	s.Server = httptest.NewServer(web.NewRouter(append(api.Routes(messages), s.letters.Routes(api.Prefix)...), web.Options{
		Auth: s.issuer.Verifier(), Log: testkit.Log(t), Metrics: prometheus.NewRegistry(),
	}))
	t.Cleanup(s.Close)
	s.consume("a")
	return s
}

// consume adds an instance of the consumer.
func (s *service) consume(instance string) {
	s.t.Helper()
	server, err := smtp.ParseURL(s.smtp.url)
	if err != nil {
		s.t.Fatal(err)
	}
	const from = "Headgate <no-reply@example.com>"
	sender, err := smtp.New(server, from, 5*time.Second, 4)
	if err != nil {
		s.t.Fatal(err)
	}
	mailer, err := mail.NewMailer(mail.Config{
		Store: store.New(s.db, outbox.New("email-service"), time.Now), Sender: sender, Sealer: s.sealer,
		BaseURL: baseURL, From: from, Concurrency: 4, Now: time.Now,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	log := testkit.Log(s.t)
	consumer := bus.NewConsumer(bus.ConsumerConfig{
		Topic:      event.Email,
		Subscriber: bus.NewSubscriber(bus.SubscriberConfig{Client: s.redis, Group: "email-service", Consumer: instance, Log: log}),
		Handlers:   api.Handlers(mailer), DeadLetters: s.letters, Log: log, Metrics: prometheus.NewRegistry(),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- consumer.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("consumer: %v", err)
		}
		sender.Close()
	})
}

const token1 = "the-token-of-the-link"

// requested returns the event that asks for a verification mail.
func (s *service) requested(to string, change func(*event.UserVerificationRequested)) event.Event {
	userID := uuid.NewString()
	p := event.UserVerificationRequested{
		Email: to, Name: "Ann", Token: s.sealer.Seal(token1, event.VerificationContext(userID)), ExpiresAt: time.Now().Add(time.Hour),
	}
	if change != nil {
		change(&p)
	}
	ctx := event.WithOrigin(context.Background(), event.Origin{RequestID: "request-1", CorrelationID: "request-1"})
	e := event.New(ctx, time.Now(), userID, p)
	e.ID, e.Producer = uuid.Must(uuid.NewV7()).String(), "auth-service"
	return e
}

func (s *service) publish(events ...event.Event) {
	s.t.Helper()
	for _, e := range events {
		data, err := json.Marshal(e)
		if err != nil {
			s.t.Fatal(err)
		}
		if err := bus.NewPublisher(s.redis).Publish(string(event.Email), message.NewMessage(e.ID, data)); err != nil {
			s.t.Fatal(err)
		}
	}
}

func newAddress() string { return uuid.NewString() + "@example.org" }

func (s *service) wantMails(to string, n int) []received {
	s.t.Helper()
	testkit.Eventually(s.t, 20*time.Second, func() error {
		if got := len(s.smtp.to(to)); got != n {
			return fmt.Errorf("%d mails to %s, want %d", got, to, n)
		}
		return nil
	})
	return s.smtp.to(to)
}

// wantSettled waits until every entry of the stream has been answered.
func (s *service) wantSettled() {
	s.t.Helper()
	testkit.Eventually(s.t, 20*time.Second, func() error {
		groups, err := s.redis.XInfoGroups(s.t.Context(), string(event.Email)).Result()
		if err == nil && (len(groups) != 1 || groups[0].Pending > 0 || groups[0].Lag != 0) {
			err = fmt.Errorf("groups = %+v", groups)
		}
		return err
	})
}

func (s *service) wantLetter(e event.Event, class string, attempts int) {
	s.t.Helper()
	testkit.Eventually(s.t, 20*time.Second, func() error {
		letters, err := s.letters.List(s.t.Context(), deadletter.Filter{}, "", 100)
		if err != nil {
			return err
		}
		for _, l := range letters {
			if l.EventID != nil && *l.EventID == e.ID {
				if l.Class != class || l.Attempts != attempts {
					return fmt.Errorf("letter = %+v, want %s after %d attempts", l, class, attempts)
				}
				return nil
			}
		}
		return fmt.Errorf("no dead letter of %s among %d", e.ID, len(letters))
	})
}

func (s *service) status(e event.Event) (status string, attempts int) {
	s.t.Helper()
	err := s.db.QueryRow(s.t.Context(), `SELECT status, attempts FROM messages WHERE event_id = $1`, e.ID).Scan(&status, &attempts)
	if err != nil {
		s.t.Fatal(err)
	}
	return status, attempts
}

func (s *service) outboxed(e event.Event, name string) int {
	s.t.Helper()
	var n int
	err := s.db.QueryRow(s.t.Context(), `SELECT count(*) FROM outbox WHERE name = $1 AND payload ->> 'causationId' = $2`, name, e.ID).Scan(&n)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// parts returns the decoded bodies of a mail by type.
func parts(t *testing.T, data string) (netmail.Header, map[string]string) {
	t.Helper()
	m, err := netmail.ReadMessage(strings.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	bodies := map[string]string{}
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		part, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return m.Header, bodies
		}
		if err != nil {
			t.Fatal(err)
		}
		kind, _, err := mime.ParseMediaType(part.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(part))
		if err != nil {
			t.Fatal(err)
		}
		bodies[kind] = string(body)
	}
}

func TestVerificationMail(t *testing.T) {
	t.Parallel()
	s := newService(t)
	to := newAddress()
	e := s.requested(to, func(p *event.UserVerificationRequested) { p.Name = `<a href="//evil.example">win</a>` })
	s.publish(e)
	letter := s.wantMails(to, 1)[0]
	header, bodies := parts(t, letter.data)
	for name, want := range map[string]string{
		"Message-Id": "<" + e.ID + "@example.com>", "Subject": "Confirm your email address", "To": "<" + to + ">",
		"Auto-Submitted": "auto-generated", "X-Entity-Ref-Id": e.ID, "User-Agent": "", "X-Mailer": "", "Bcc": "",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	link := baseURL + "/api/v1/auth/verify-email?token=" + token1
	for _, kind := range []string{"text/plain", "text/html"} {
		if !strings.Contains(bodies[kind], link) {
			t.Errorf("%s has no link:\n%s", kind, bodies[kind])
		}
		if strings.Contains(bodies[kind], "evil") {
			t.Errorf("SEC-63: %s shows what a stranger wrote:\n%s", kind, bodies[kind])
		}
	}
	s.wantSettled()
	if status, attempts := s.status(e); status != mail.Sent || attempts != 1 || s.outboxed(e, "email.sent.v1") != 1 {
		t.Errorf("message is %s after %d attempts, %d events", status, attempts, s.outboxed(e, "email.sent.v1"))
	}
	var dump string
	if err := s.db.QueryRow(t.Context(), `SELECT (SELECT string_agg(m::text, '') FROM messages m) || (SELECT string_agg(payload::text, '') FROM outbox)`).Scan(&dump); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(dump, token1) || strings.Contains(dump, "a href") {
		t.Errorf("the database holds the link or the body: %s", dump)
	}
}

// TestOnce delivers one event many times to two instances.
func TestOnce(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.consume("b")
	to := newAddress()
	e := s.requested(to, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { s.publish(e) })
	}
	wg.Wait()
	s.wantMails(to, 1)
	s.wantSettled()
	s.wantMails(to, 1)
	if n := s.outboxed(e, "email.sent.v1"); n != 1 {
		t.Errorf("%d events that it was sent", n)
	}
}

func TestRejectedMail(t *testing.T) {
	t.Parallel()
	s := newService(t)
	bad, good := newAddress(), newAddress()
	s.smtp.script(func(to string) error {
		if to == bad {
			return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "no such user " + to}
		}
		return nil
	})
	e := s.requested(bad, nil)
	s.publish(e, s.requested(good, nil))
	s.wantMails(good, 1)
	s.wantLetter(e, "permanent", 1)
	letters, err := s.letters.List(t.Context(), deadletter.Filter{}, "", 1)
	if err != nil || strings.Contains(letters[0].Reason, bad) || !strings.Contains(letters[0].Reason, "550") {
		t.Errorf("SEC-65: the reason shows the address: %+v, %v", letters, err)
	}
	if status, attempts := s.status(e); status != mail.Failed || attempts != 1 || s.outboxed(e, "email.failed.v1") != 1 {
		t.Errorf("message is %s after %d attempts", status, attempts)
	}
}

func TestBusyServerIsTriedAgain(t *testing.T) {
	t.Parallel()
	s := newService(t)
	to := newAddress()
	left := 2
	s.smtp.script(func(string) error {
		if left--; left >= 0 {
			return &gosmtp.SMTPError{Code: 451, EnhancedCode: gosmtp.EnhancedCode{4, 3, 0}, Message: "later"}
		}
		return nil
	})
	e := s.requested(to, nil)
	s.publish(e)
	s.wantMails(to, 1)
	s.wantSettled()
	if status, attempts := s.status(e); status != mail.Sent || attempts != 3 {
		t.Errorf("message is %s after %d attempts", status, attempts)
	}
}

func TestServerThatStaysBusy(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.smtp.script(func(string) error {
		return &gosmtp.SMTPError{Code: 451, EnhancedCode: gosmtp.EnhancedCode{4, 3, 0}, Message: "later"}
	})
	e := s.requested(newAddress(), nil)
	s.publish(e)
	s.wantLetter(e, "message", 3)
	if status, _ := s.status(e); status != mail.Deferred {
		t.Errorf("message is %s", status)
	}
}

func TestWhatNoAttemptWouldMend(t *testing.T) {
	t.Parallel()
	s := newService(t)
	other, err := event.NewSealer(strings.Repeat("another key ", 4))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*event.UserVerificationRequested){
		"sealed with another key": func(p *event.UserVerificationRequested) { p.Token = other.Seal("x", "") },
		"sealed for another account": func(p *event.UserVerificationRequested) {
			p.Token = s.sealer.Seal("x", event.VerificationContext("other"))
		},
		"expired":                 func(p *event.UserVerificationRequested) { p.ExpiresAt = time.Now().Add(-time.Minute) },
		"SEC-62 header injection": func(p *event.UserVerificationRequested) { p.Email = "a@example.org\r\nBcc: b@example.org" },
		"several recipients":      func(p *event.UserVerificationRequested) { p.Email = "a@example.org, b@example.org" },
	} {
		t.Run(name, func(t *testing.T) {
			e := s.requested("a@example.org", change)
			s.publish(e)
			s.wantLetter(e, "permanent", 1)
		})
	}
	if n := len(s.smtp.to("a@example.org")); n != 0 {
		t.Errorf("%d mails", n)
	}
}

// TestMalformedEntryAndFlush are traps T1 and T2 in this service.
func TestMalformedEntryAndFlush(t *testing.T) {
	t.Parallel()
	s := newService(t)
	if err := s.redis.XAdd(t.Context(), &redis.XAddArgs{Stream: string(event.Email), Values: []string{"junk", "1"}}).Err(); err != nil {
		t.Fatal(err)
	}
	first, second := newAddress(), newAddress()
	s.publish(s.requested(first, nil))
	s.wantMails(first, 1)
	testkit.Eventually(t, 10*time.Second, func() error {
		letters, err := s.letters.List(t.Context(), deadletter.Filter{}, "", 10)
		if err == nil && len(letters) != 1 {
			err = fmt.Errorf("%d dead letters", len(letters))
		}
		return err
	})
	if err := s.redis.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	s.publish(s.requested(second, nil))
	s.wantMails(second, 1)
}

func TestReuseNotice(t *testing.T) {
	t.Parallel()
	s := newService(t)
	to := newAddress()
	ctx := event.WithOrigin(context.Background(), event.Origin{IP: "192.0.2.9", UserAgent: "<script>alert(1)</script>"})
	e := event.New(ctx, time.Now(), uuid.NewString(), event.SessionRefreshReused{SessionID: "s", Email: to, Name: "Ann"})
	e.ID, e.Producer = uuid.Must(uuid.NewV7()).String(), "auth-service"
	s.publish(e)
	_, bodies := parts(t, s.wantMails(to, 1)[0].data)
	if !strings.Contains(bodies["text/plain"], "192.0.2.9") || strings.Contains(bodies["text/html"], "<script>") {
		t.Errorf("bodies = %v", bodies)
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	s := newService(t)
	to := newAddress()
	e := s.requested(to, nil)
	s.publish(e, s.requested(newAddress(), nil))
	s.wantMails(to, 1)
	s.wantSettled()
	var list struct {
		Data []struct{ ID, EventID, To, Status, Template string }
		Meta web.Meta
	}
	get := func(path, role string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+api.Prefix+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if role != "" {
			req.Header.Set("Authorization", "Bearer "+s.issuer.Token(token.Identity{Role: role}))
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		list.Data = nil
		data, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		_ = json.Unmarshal(data, &list) // One message and errors are no lists.
		return res.StatusCode
	}
	for _, path := range []string{"/messages", "/messages/" + uuid.NewString(), "/dead-letters"} {
		for role, want := range map[string]int{"": 401, "user": 403, "auditor": 403} {
			if status := get(path, role); status != want {
				t.Errorf("GET %s as %q = %d, want %d", path, role, status, want)
			}
		}
	}
	if status := get("/messages?limit=1", "admin"); status != 200 || len(list.Data) != 1 || !list.Meta.HasMore {
		t.Errorf("first page = %d %+v", status, list)
	}
	if status := get("/messages?to="+to+"&status=sent&template=verification", "admin"); status != 200 || len(list.Data) != 1 || list.Data[0].EventID != e.ID {
		t.Fatalf("filtered = %d %+v", status, list)
	}
	if status := get("/messages/"+list.Data[0].ID, "admin"); status != 200 {
		t.Errorf("one = %d", status)
	}
	for path, want := range map[string]int{
		"/messages/" + uuid.NewString(): 404, "/messages/junk": 404, "/messages?status=lost": 400, "/messages?to=%00": 400,
		"/messages?cursor=anVuaw": 400, "/messages?status=queued": 200, "/nothing": 404,
	} {
		if status := get(path, "admin"); status != want {
			t.Errorf("GET %s = %d, want %d", path, status, want)
		}
	}
}
