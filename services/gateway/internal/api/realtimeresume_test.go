package api_test

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
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
