package api_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/api"
	"github.com/headgate/headgate/services/gateway/internal/ratelimit"
	"github.com/headgate/headgate/services/gateway/internal/realtime"
)

// TestREL103AnyGateway: every gateway delivers every event, over both transports, and a client
// continues at another one, also at one that has just started, without a loss or a repetition.
func TestREL103AnyGateway(t *testing.T) {
	t.Parallel()
	issuer, redisURL := testkit.NewIssuer(t), testkit.RedisURL(t)
	p := newPublisher(t, redisURL)
	first, second := newLive(t, issuer, redisURL, nil), newLive(t, issuer, redisURL, nil)
	bearer := issuer.Token(token.Identity{UserID: "ann"})
	at1, at2, sse := first.listen(bearer, ""), second.listen(bearer, ""), second.stream(bearer, "")
	for _, l := range []*listener{at1, at2, sse} {
		l.want(openedType)
	}
	p.updated("ann", 1)
	p.hint("ann", event.EmailSent{Template: "verify"})
	p.updated("bob", 99)
	for _, l := range []*listener{at1, at2, sse} {
		got := map[string]string{} // Two streams have no common order.
		for range 2 {
			m := l.next()
			got[m.Type] = string(m.Data)
		}
		if got["user.updated"] != `{"fields":["1"]}` || got["email.sent"] != `{"template":"verify"}` {
			t.Errorf("messages = %s", got)
		}
	}
	from := at1.last
	p.updated("ann", 2)
	p.updated("ann", 3)
	third := newLive(t, issuer, redisURL, nil)
	for name, g := range map[string]*live{"the same": first, "another": second, "a new one": third} {
		for transport, l := range map[string]*listener{
			"websocket": g.listen(bearer, "&lastEventId="+from), "sse": g.stream(bearer, "", "Last-Event-ID", from),
		} {
			l.wantUpdates(2, 3)
			l.want(openedType)
			if t.Failed() {
				t.Fatalf("%s at %s", transport, name)
			}
			defer l.wantUpdates(4)
		}
	}
	p.updated("ann", 4)
}

// TestREL103RedisRestart: while Redis is away, connections stay and new ones are refused with
// 503. When it is back with its data, clients continue; without, they are told.
func TestREL103RedisRestart(t *testing.T) {
	t.Parallel()
	options := localserver.Options{Dir: t.TempDir(), Durable: true}
	server, err := localserver.StartRedis(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	options.Port = server.Port
	restart := func() {
		t.Helper()
		testkit.Eventually(t, func() (err error) {
			server, err = localserver.StartRedis(t.Context(), options)
			return err
		})
	}
	t.Cleanup(func() { _ = server.Stop(context.Background()) }) // The test has stopped it if it failed.
	issuer := testkit.NewIssuer(t)
	g, p := newLive(t, issuer, server.URL, nil), newPublisher(t, server.URL)
	bearer := issuer.Token(token.Identity{UserID: "ann"})
	l := g.listen(bearer, "")
	l.want(openedType)
	p.updated("ann", 1)
	l.wantUpdates(1)

	server.Kill()
	for _, call := range []struct{ method, path string }{{"POST", "/api/v1/realtime/ticket"}, {"GET", "/api/v1/realtime/ws?ticket=" + base64.RawURLEncoding.EncodeToString(make([]byte, 32))}} {
		res, body := g.request(call.method, call.path, append(handshake(), "Authorization", "Bearer "+bearer)...)
		if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" || !strings.Contains(body, `"realtime_unavailable"`) {
			t.Errorf("%s %s without Redis = %d %s", call.method, call.path, res.StatusCode, body)
		}
	}
	restart()
	publish := func(n int) {
		t.Helper()
		testkit.Eventually(t, func() error { return p.client.Ping(t.Context()).Err() })
		p.updated("ann", n)
	}
	publish(2)
	l.wantUpdates(2)
	resumed := g.listen(bearer, "&lastEventId="+l.last)
	resumed.want(openedType)

	if err := p.client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	restart()
	publish(3)
	for _, l := range []*listener{l, resumed} {
		seen := map[string]bool{}
		for !seen["resume.failed"] || !seen["user.updated"] {
			seen[l.next().Type] = true
		}
	}
	g.ready() // It may have to read the stream again.
	back := g.listen(bearer, "&lastEventId="+l.last)
	for back.next().Type != openedType {
	}
}

// handshake returns the header of a WebSocket handshake.
func handshake() []string {
	return []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="}
}

func TestSEC153Tickets(t *testing.T) {
	t.Parallel()
	issuer, redisURL := testkit.NewIssuer(t), testkit.RedisURL(t)
	var logs testkit.Buffer
	change := func(s *liveSetup) {
		s.log = service.NewLogger(&logs, "gateway", service.Common{LogFormat: "json", LogLevel: "debug"})
	}
	g, other := newLive(t, issuer, redisURL, change), newLive(t, issuer, redisURL, nil)
	p := newPublisher(t, redisURL)
	ann, bob := issuer.Token(token.Identity{UserID: "ann"}), issuer.Token(token.Identity{UserID: "bob"})

	// It admits at any gateway, once, and only as the user who got it.
	ticket := g.ticket(ann)
	l := other.dial("ticket=" + ticket)
	l.want(openedType)
	for _, again := range []*live{g, other} {
		again.dial("ticket="+ticket).wantClosed(4401, "ticket_invalid")
	}
	p.updated("bob", 1)
	p.updated("ann", 2)
	l.wantUpdates(2)

	// Many at the same time: one wins.
	ticket = g.ticket(ann)
	var attempts []*listener
	for i := range 8 {
		attempts = append(attempts, []*live{g, other}[i%2].dial("ticket="+ticket))
	}
	admitted := 0
	for _, a := range attempts {
		if m, ok := <-a.messages; ok && m.Type == openedType {
			admitted++
		}
	}
	if admitted != 1 {
		t.Errorf("one ticket admitted %d times", admitted)
	}

	for _, bad := range []string{"", "x", strings.Repeat("A", 43), strings.Repeat("A", 42) + "B", strings.Repeat("A", 44)} {
		parameters := "ticket=" + bad
		if bad == "" {
			parameters = ""
		}
		g.dial(parameters).wantClosed(4401, "ticket_invalid")
	}

	// It expires after 30 seconds, and Redis has neither it nor the token.
	first, second := g.ticket(ann), g.ticket(bob)
	keys, err := p.client.Keys(t.Context(), "realtime:ticket:*").Result()
	if err != nil || len(keys) != 2 {
		t.Fatalf("tickets in Redis: %v, %v", keys, err)
	}
	values := map[string]string{}
	for _, key := range keys {
		if ttl := p.client.PTTL(t.Context(), key).Val(); ttl <= 0 || ttl > 30*time.Second {
			t.Errorf("a ticket can be redeemed for %s", ttl)
		}
		values[key] = p.client.Get(t.Context(), key).Val()
		for _, secret := range []string{first, second, ann, bob} {
			if strings.Contains(key+values[key], secret) {
				t.Error("Redis has a ticket or a token")
			}
		}
	}
	// Nobody who can write in Redis makes a ticket admit another user.
	p.client.Set(t.Context(), keys[0], values[keys[1]], 0)
	p.client.Set(t.Context(), keys[1], values[keys[0]], 0)
	g.dial("ticket="+first).wantClosed(4401, "ticket_invalid")
	g.dial("ticket="+second).wantClosed(4401, "ticket_invalid")

	// A ticket does not outlive the session.
	revoked := issuer.Token(token.Identity{UserID: "ann", SessionID: "revoked"})
	ticket = g.ticket(revoked)
	p.publish("ann", event.SessionRevoked{SessionID: "revoked"})
	testkit.Eventually(t, func() error {
		if res, _ := g.request("POST", "/api/v1/realtime/ticket", "Authorization", "Bearer "+revoked); res.StatusCode != http.StatusUnauthorized {
			return fmt.Errorf("status = %d", res.StatusCode)
		}
		return nil
	})
	g.dial("ticket="+ticket).wantClosed(4401, "session_revoked")

	for _, header := range [][]string{nil, {"Authorization", "Bearer junk"}} {
		if res, body := g.request("POST", "/api/v1/realtime/ticket", header...); res.StatusCode != http.StatusUnauthorized || res.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("ticket with %q = %d %s", header, res.StatusCode, body)
		}
	}
	g.server.Stop() // All lines are written.
	for _, secret := range []string{first, second, ticket, ann, "ticket="} {
		if strings.Contains(logs.String(), secret) {
			t.Errorf("the log has %q", secret)
		}
	}
	if !strings.Contains(logs.String(), `"route":"/api/v1/realtime/ws"`) {
		t.Errorf("the log has no line of the WebSocket: %s", &logs)
	}
}

func TestSEC154Channels(t *testing.T) {
	t.Parallel()
	issuer, redisURL := testkit.NewIssuer(t), testkit.RedisURL(t)
	strict := newLive(t, issuer, redisURL, func(s *liveSetup) { s.realtime.StepUp = web.StepUp{RequireMFAFor: []string{"admin"}} })
	g, p := newLive(t, issuer, redisURL, nil), newPublisher(t, redisURL)
	admin := issuer.Token(token.Identity{UserID: "admin", Role: "admin"})
	for role, allowed := range map[string]string{"user": "", "auditor": "audit", "admin": "audit dead_letters streams", "other": ""} {
		bearer := issuer.Token(token.Identity{Role: role})
		for _, channels := range []string{"audit", "dead_letters", "streams", "audit,streams"} {
			may := true
			for channel := range strings.SplitSeq(channels, ",") {
				may = may && strings.Contains(allowed, channel)
			}
			if may {
				g.listen(bearer, "&channels="+channels).want(openedType)
				g.stream(bearer, "?channels="+channels).want(openedType)
				continue
			}
			g.listen(bearer, "&channels="+channels).wantClosed(4403, "forbidden")
			if res, body := g.request("GET", "/api/v1/realtime/events?channels="+channels, "Authorization", "Bearer "+bearer); res.StatusCode != http.StatusForbidden {
				t.Errorf("%s as %s = %d %s", channels, role, res.StatusCode, body)
			}
		}
	}
	strict.listen(admin, "&channels=audit").wantClosed(4403, "mfa_required")
	strict.listen(issuer.Token(token.Identity{Role: "admin", ACR: token.AAL2}), "&channels=audit").want(openedType)

	all, own := g.listen(admin, "&channels=audit,dead_letters"), g.listen(admin, "")
	all.want(openedType)
	own.want(openedType)
	p.hint("", event.AuditAppended{Count: 3})
	p.hint("", event.DeadLetterAdded{Count: 1})
	p.updated("admin", 1)
	seen := map[string]bool{}
	for range 3 {
		seen[all.next().Type] = true
	}
	if !seen["audit.appended"] || !seen["dead_letter.added"] || !seen["user.updated"] {
		t.Errorf("the administrator got %v", seen)
	}
	own.wantUpdates(1)

	// Events that their producers have not signed, and those of other producers, are no events.
	forged := testkit.NewEvent(t.Context(), "admin", event.UserProfileUpdated{Fields: []string{"forged"}})
	if err := bus.NewPublisher(p.client).Publish(string(event.User), testkit.Message(t, forged)); err != nil {
		t.Fatal(err)
	}
	forged = testkit.NewEvent(t.Context(), "admin", event.EmailSent{Template: "forged"})
	forged.Producer = "user-service"
	testkit.Publish(t, p.client, event.Realtime, forged)
	p.updated("admin", 2)
	p.hint("admin", event.EmailSent{Template: "real"})
	for range 2 {
		if m := own.next(); strings.Contains(string(m.Data), "forged") {
			t.Errorf("a forged event was delivered: %s", m.Data)
		}
	}
}

// TestSEC155EndedSessionsClose: a connection whose session has ended closes within a second,
// over both transports and at every gateway, and gets nothing more.
func TestSEC155EndedSessionsClose(t *testing.T) {
	t.Parallel()
	issuer, redisURL := testkit.NewIssuer(t), testkit.RedisURL(t)
	p := newPublisher(t, redisURL)
	gateways := []*live{newLive(t, issuer, redisURL, nil), newLive(t, issuer, redisURL, nil)}
	connect := func(bearer string) (all []*listener) {
		for _, g := range gateways {
			all = append(all, g.listen(bearer, ""), g.stream(bearer, ""))
		}
		for _, l := range all {
			l.want(openedType)
		}
		return all
	}
	for name, end := range map[string]func(session string){
		"revoked":    func(session string) { p.publish("ann", event.SessionRevoked{SessionID: session, Reason: "admin"}) },
		"logged out": func(session string) { p.publish("ann", event.UserLoggedOut{SessionID: session}) },
	} {
		fastest := time.Hour
		for round := range 3 { // The machine may be busy, so one round must show it.
			session := fmt.Sprint(name, round)
			ended := connect(issuer.Token(token.Identity{UserID: "ann", SessionID: session}))
			others := connect(issuer.Token(token.Identity{UserID: "ann"}))
			began := time.Now()
			end(session)
			p.updated("ann", round)
			for _, l := range ended {
				l.wantClosed(4401, "session_revoked")
				for m := range l.messages {
					t.Errorf("%s: the ended session got %s", name, m.Type)
				}
			}
			fastest = min(fastest, time.Since(began))
			for _, l := range others {
				l.want("session.revoked")
				l.wantUpdates(round)
			}
		}
		if fastest > time.Second {
			t.Errorf("%s: the connections closed in %s at best", name, fastest)
		}
	}

	// A token that expires, and everybody at once.
	claims := issuer.Claims(token.Identity{UserID: "ann"})
	claims.ExpiresAt = jwt.NewNumericDate(time.Now().Add(-2 * time.Second)) // Clocks may differ by five.
	for _, l := range connect(issuer.Sign(claims)) {
		l.wantClosed(4401, "token_expired")
	}
	everybody := connect(issuer.Token(token.Identity{UserID: "bob", AuthTime: time.Now().Add(-time.Minute)}))
	p.publish("", event.SessionsAllRevoked{Before: time.Now()})
	for _, l := range everybody {
		l.wantClosed(4401, "session_revoked")
	}
}

// TestSEC155StalledClient: a client that does not read cannot keep the connection of an ended
// session open.
func TestSEC155StalledClient(t *testing.T) {
	t.Parallel()
	issuer, redisURL := testkit.NewIssuer(t), testkit.RedisURL(t)
	g, p := newLive(t, issuer, redisURL, nil), newPublisher(t, redisURL)
	bearer := issuer.Token(token.Identity{UserID: "ann", SessionID: "ended"})
	var stalled []net.Conn
	for _, request := range []string{
		"GET /api/v1/realtime/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + bearer + "\r\n\r\n",
		"GET /api/v1/realtime/ws?ticket=" + g.ticket(bearer) + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(g.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.(*net.TCPConn).SetReadBuffer(1 << 10)
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		stalled = append(stalled, conn)
	}
	open := func() float64 { return metric(t, g, "headgate_realtime_connections") }
	testkit.Eventually(t, func() error {
		if n := open(); n != 2 {
			return fmt.Errorf("%v connections", n)
		}
		return nil
	})
	p.publish("ann", event.SessionRevoked{SessionID: "ended"})
	testkit.Within(t, 10*time.Second, func() error {
		if n := open(); n != 0 {
			return fmt.Errorf("%v connections of an ended session", n)
		}
		return nil
	})
	for _, conn := range stalled {
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") && strings.Contains(err.Error(), "timeout") {
			t.Errorf("the connection is open: %v", err)
		}
	}
}

func TestSEC156Origins(t *testing.T) {
	t.Parallel()
	issuer, redisURL := testkit.NewIssuer(t), testkit.RedisURL(t)
	bearer := issuer.Token(token.Identity{})
	plain := newLive(t, issuer, redisURL, func(s *liveSetup) { s.origins = api.Origins{"https://app.example.com"} })
	public := newLive(t, issuer, redisURL, func(s *liveSetup) { s.realtime.PublicURL = "https://id.example.com/" })
	for _, tc := range []struct {
		g       *live
		origin  string
		allowed bool
	}{
		{plain, "https://app.example.com", true},
		{plain, plain.URL, true},
		{plain, "https" + strings.TrimPrefix(plain.URL, "http"), true}, // A proxy speaks TLS.
		{plain, "https://app.example.com.evil.example", false},
		{plain, "https://evil.example", false},
		{plain, "http://app.example.com", false},
		{plain, "https://app.example.com:8443", false},
		{plain, "null", false},
		{plain, "", false},
		{plain, "file://" + strings.TrimPrefix(plain.URL, "http://"), false},
		{plain, "://", false},
		{public, "https://id.example.com", true},
		{public, "http://id.example.com", false},
		{public, public.URL, false}, // The page of another name that leads here.
	} {
		ticket := tc.g.ticket(bearer)
		l := tc.g.dial("ticket="+ticket, "Origin", tc.origin)
		if tc.allowed {
			l.want(openedType)
			continue
		}
		l.wantClosed(4403, "origin_not_allowed")
		tc.g.dial("ticket=" + ticket).want(openedType) // The ticket was not used.
	}
	plain.dial("ticket="+plain.ticket(bearer), "Origin", plain.URL, "Origin", plain.URL).wantClosed(4403, "origin_not_allowed")
	if res, body := plain.request("OPTIONS", "/api/v1/realtime/ticket", "Origin", "https://evil.example", "Access-Control-Request-Method", "POST"); res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("a script of another origin may get tickets: %v %s", res.Header, body)
	}
}

func TestSEC157Requests(t *testing.T) {
	t.Parallel()
	issuer, redisURL := testkit.NewIssuer(t), testkit.RedisURL(t)
	g := newLive(t, issuer, redisURL, nil)
	bearer := []string{"Authorization", "Bearer " + issuer.Token(token.Identity{})}
	for _, tc := range []struct {
		method, path, code string
		status             int
		header             []string
	}{
		{"GET", "/api/v1/realtime/ws?lastEventId=junk", "validation_failed", 400, handshake()},
		{"GET", "/api/v1/realtime/ws?lastEventId=00000000000000aa.1-0.x", "validation_failed", 400, handshake()},
		{"GET", "/api/v1/realtime/ws?channels=all", "validation_failed", 400, handshake()},
		{"GET", "/api/v1/realtime/ws?x=1", "validation_failed", 400, handshake()},
		{"GET", "/api/v1/realtime/ws?ticket=a&ticket=b", "validation_failed", 400, handshake()},
		{"GET", "/api/v1/realtime/ws", "websocket_required", 400, nil},
		{"GET", "/api/v1/realtime/ws", "websocket_required", 400, append(handshake(), "Sec-WebSocket-Key", "x")},
		{"HEAD", "/api/v1/realtime/ws", "", 400, handshake()},
		{"POST", "/api/v1/realtime/ws", "method_not_allowed", 405, handshake()},
		{"GET", "/api/v1/realtime/ticket", "method_not_allowed", 405, bearer},
		{"POST", "/api/v1/realtime/events", "method_not_allowed", 405, bearer},
		{"GET", "/api/v1/realtime/events", "unauthenticated", 401, nil},
		{"GET", "/api/v1/realtime/events", "token_invalid", 401, []string{"Authorization", "Bearer junk"}},
		{"GET", "/api/v1/realtime/events", "validation_failed", 400, append([]string{"Last-Event-ID", "junk"}, bearer...)},
		{"GET", "/api/v1/realtime/events", "validation_failed", 400, append([]string{"Last-Event-ID", "", "Last-Event-ID", ""}, bearer...)},
		{"GET", "/api/v1/realtime/events?channels=", "validation_failed", 400, bearer},
		{"GET", "/api/v1/realtime/events?lastEventId=1", "validation_failed", 400, bearer},
		{"HEAD", "/api/v1/realtime/events", "", 200, bearer},
		{"GET", "/api/v1/realtime", "not_found", 404, bearer},
	} {
		res, body := g.request(tc.method, tc.path, tc.header...)
		if res.StatusCode != tc.status || tc.code != "" && !strings.Contains(body, `"code":"`+tc.code+`"`) {
			t.Errorf("%s %s with %q = %d %s, want %d %s", tc.method, tc.path, tc.header, res.StatusCode, body, tc.status, tc.code)
		}
	}
	for _, text := range []string{"hello", strings.Repeat("x", 10_000)} {
		socket := g.socket("ticket=" + g.ticket(bearer[1][len("Bearer "):]))
		if err := socket.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
		var err error
		for err == nil {
			_, _, err = socket.Read(t.Context())
		}
		if websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
			t.Errorf("after a message of a client: %v", err)
		}
	}
}

func TestSEC157ConnectionLimits(t *testing.T) {
	t.Parallel()
	issuer, redisURL := testkit.NewIssuer(t), testkit.RedisURL(t)
	g := newLive(t, issuer, redisURL, func(s *liveSetup) {
		s.limits = realtime.Limits{Total: 100, PerNetwork: 4, PerUser: 2}
		s.rates.Realtime = ratelimit.Rate{Requests: 12, Window: time.Minute}
	})
	ann, bob := issuer.Token(token.Identity{}), issuer.Token(token.Identity{})
	refused := func(bearer string) (int, string) {
		t.Helper()
		res, body := g.request("GET", "/api/v1/realtime/events", "Authorization", "Bearer "+bearer)
		return res.StatusCode, body
	}
	g.listen(ann, "").want(openedType)
	last := g.stream(ann, "")
	last.want(openedType)
	if status, body := refused(ann); status != http.StatusTooManyRequests || !strings.Contains(body, "too_many_connections") {
		t.Errorf("the third connection of a user = %d %s", status, body)
	}
	res, body := g.request("GET", "/api/v1/realtime/ws?ticket="+g.ticket(ann), handshake()...)
	if res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" {
		t.Errorf("the third connection of a user = %d %s", res.StatusCode, body)
	}
	b := g.listen(bob, "")
	b.want(openedType)
	socket := g.socket("ticket=" + g.ticket(bob))
	carol := issuer.Token(token.Identity{})
	if status, body := refused(carol); status != http.StatusTooManyRequests {
		t.Errorf("the fifth connection of a network = %d %s", status, body)
	}
	_ = socket.CloseNow()
	testkit.Eventually(t, func() error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL+"/api/v1/realtime/events", http.NoBody)
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+issuer.Token(token.Identity{}))
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("after one has gone: %d", res.StatusCode)
		}
		return nil
	})
	for range 12 {
		g.request("POST", "/api/v1/realtime/ticket", "Authorization", "Bearer "+carol)
	}
	if res, body := g.request("POST", "/api/v1/realtime/ticket", "Authorization", "Bearer "+carol); res.StatusCode != http.StatusTooManyRequests || !strings.Contains(body, "rate_limited") {
		t.Errorf("many tickets = %d %s", res.StatusCode, body)
	}
}

// TestSEC157Unanswered: a client that does not answer a ping, or does not read, loses its
// connection with 4408.
func TestSEC157Unanswered(t *testing.T) {
	t.Parallel()
	issuer, redisURL := testkit.NewIssuer(t), testkit.RedisURL(t)
	g := newLive(t, issuer, redisURL, func(s *liveSetup) {
		s.realtime.Heartbeat, s.realtime.AnswerTimeout = 100*time.Millisecond, 500*time.Millisecond
	})
	bearer := issuer.Token(token.Identity{UserID: "ann"})
	answering := g.listen(bearer, "")
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /api/v1/realtime/ws?ticket=%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", g.ticket(bearer))
	_ = conn.SetReadDeadline(time.Now().Add(testkit.Timeout))
	got, err := io.ReadAll(conn) // It reads and never answers.
	if err != nil && !strings.Contains(err.Error(), "reset") {
		t.Fatal(err)
	}
	if !bytes.Contains(got, []byte("\x11\x38no_pong")) { // 4408, big-endian
		t.Errorf("the end of the connection: %q", got[max(0, len(got)-200):])
	}
	select {
	case <-answering.closed:
		t.Errorf("the client that answers: %d %s", answering.code, answering.reason)
	default:
	}
}

// TestREL105StreamsOutliveTimeouts: the limits for requests do not end streams, heartbeats keep
// them alive, and their ids are those of a client that has missed nothing. In the metrics, the
// request has ended when the stream began.
func TestREL105StreamsOutliveTimeouts(t *testing.T) {
	t.Parallel()
	issuer, redisURL := testkit.NewIssuer(t), testkit.RedisURL(t)
	p := newPublisher(t, redisURL)
	g := newLive(t, issuer, redisURL, func(s *liveSetup) { s.realtime.Heartbeat = 50 * time.Millisecond })
	// The same handler behind a server with short limits.
	short := httptest.NewUnstartedServer(g.handler)
	short.Config.ReadTimeout, short.Config.WriteTimeout, short.Config.IdleTimeout = 300*time.Millisecond, 300*time.Millisecond, 300*time.Millisecond
	short.Start()
	t.Cleanup(short.Close)
	through := *g
	through.URL = short.URL
	bearer := issuer.Token(token.Identity{UserID: "ann"})
	clients := []*listener{through.listen(bearer, ""), through.stream(bearer, "")}
	for _, l := range clients {
		l.want(openedType)
	}
	for _, l := range clients {
		began, ids := time.Now(), map[string]bool{}
		for len(ids) < 3 || time.Since(began) < 2*time.Second { // The positions move although nothing happens.
			m, ok := <-l.messages
			if !ok {
				t.Fatalf("the stream ended after %s: %d %s", time.Since(began), l.code, l.reason)
			}
			ids[m.ID] = true
		}
	}
	p.updated("ann", 1)
	for _, l := range clients {
		l.wantUpdates(1)
	}
	if n := metric(t, g, "headgate_http_requests_in_flight"); n != 0 {
		t.Errorf("%v requests are in flight", n)
	}
	if took := metric(t, g, "headgate_http_request_duration_seconds"); took > 2 {
		t.Errorf("the requests took %v s", took)
	}
	short.CloseClientConnections()
}

// TestREL104ServerDrains: a gateway that stops tells its clients to connect elsewhere, and does
// not wait for them any longer.
func TestREL104ServerDrains(t *testing.T) {
	t.Parallel()
	issuer, redisURL := testkit.NewIssuer(t), testkit.RedisURL(t)
	g, other, p := newLive(t, issuer, redisURL, nil), newLive(t, issuer, redisURL, nil), newPublisher(t, redisURL)
	bearer := issuer.Token(token.Identity{UserID: "ann"})
	socket, stream := g.listen(bearer, ""), g.stream(bearer, "")
	socket.want(openedType)
	stream.want(openedType)
	began := time.Now()
	g.server.Stop()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the server stopped after %s", took)
	}
	stream.wantClosed(1012, "restarting")
	var hint message
	for m := range socket.messages {
		hint = m
	}
	socket.wantClosed(1012, "restarting")
	if hint.Type != "connection.closing" || !strings.Contains(string(hint.Data), `"reconnectAfterMs":`) {
		t.Errorf("the last message = %s %s", hint.Type, hint.Data)
	}
	p.updated("ann", 1)
	again := other.listen(bearer, "&lastEventId="+hint.ID)
	seen := map[string]bool{}
	for range 2 {
		seen[again.next().Type] = true
	}
	if !seen["user.updated"] || !seen[openedType] {
		t.Errorf("the next gateway said %v", seen)
	}
}

// metric returns the sum of a gauge, a counter or a histogram.
func metric(t *testing.T, g *live, name string) float64 {
	t.Helper()
	families, err := g.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetHistogram().GetSampleSum()
		}
	}
	return sum
}

// TestREL104NothingIsLeft: connections that have ended leave no goroutine, whichever side ended
// them. It does not run beside other tests, whose goroutines it would see.
func TestREL104NothingIsLeft(t *testing.T) {
	issuer, redisURL := testkit.NewIssuer(t), testkit.RedisURL(t)
	g := newLive(t, issuer, redisURL, func(s *liveSetup) { s.realtime.Heartbeat = 10 * time.Millisecond })
	p := newPublisher(t, redisURL)
	bearer := issuer.Token(token.Identity{UserID: "ann", SessionID: "ended"})
	var all []*listener
	for range 10 {
		socket := g.socket("ticket=" + g.ticket(bearer))
		all = append(all, g.listen(bearer, ""), g.stream(bearer, ""))
		if err := socket.CloseNow(); err != nil { // Without a word.
			t.Error(err)
		}
	}
	g.dial("ticket=x").wantClosed(4401)
	for _, l := range all {
		l.want(openedType)
	}
	if left := goroutines(); len(left) == 0 {
		t.Error("the test sees no goroutines of connections")
	}
	p.publish("ann", event.SessionRevoked{SessionID: "ended"})
	for _, l := range all {
		l.wantClosed(4401)
	}
	testkit.Eventually(t, func() error {
		if left := goroutines(); len(left) > 0 {
			return fmt.Errorf("%d goroutines are left, such as %s", len(left), left[0])
		}
		return nil
	})
	if n := metric(t, g, "headgate_realtime_connections"); n != 0 {
		t.Errorf("%v connections are counted", n)
	}
}

// goroutines returns the stacks of the goroutines that serve real-time connections.
func goroutines() (found []string) {
	buffer := make([]byte, 16<<20)
	for stack := range strings.SplitSeq(string(buffer[:runtime.Stack(buffer, true)]), "\n\n") {
		if strings.Contains(stack, "realtimeRoutes") {
			found = append(found, stack)
		}
	}
	return found
}
