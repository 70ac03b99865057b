package api_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/gateway/internal/ratelimit"
	"github.com/headgate/headgate/services/gateway/internal/realtime"
)

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
