package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/gateway/internal/api"
)

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
