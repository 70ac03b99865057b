package api_test

import (
	"fmt"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
)

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
	const limit = 2 * time.Second
	short.Config.ReadTimeout, short.Config.WriteTimeout, short.Config.IdleTimeout = limit, limit, limit
	short.Start()
	t.Cleanup(short.Close)
	through := *g
	through.URL = short.URL
	bearer := issuer.Token(token.Identity{UserID: "ann"})
	clients := []*listener{through.listen(bearer, ""), through.stream(bearer, "")}
	for _, l := range clients {
		l.want(openedType)
	}
	began := time.Now()
	for _, l := range clients {
		ids := map[string]bool{}
		for len(ids) < 3 || time.Since(began) < 3*limit { // The positions move although nothing happens.
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
