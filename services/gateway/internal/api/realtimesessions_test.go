package api_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
)

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
	claims.ExpiresAt = jwt.NewNumericDate(time.Now().Add(5 * time.Second)) // Clocks may differ by five.
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
