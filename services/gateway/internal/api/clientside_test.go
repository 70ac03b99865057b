package api_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/gateway/internal/api"
	"github.com/headgate/headgate/services/gateway/internal/upstream"
)

// clientFault is a request that fails through its client.
type clientFault struct {
	name   string
	text   string
	then   func(c *net.TCPConn) error // after text was sent
	status int                        // 0 if the client gets no response
	code   string
}

const (
	putAvatar  = "PUT " + avatar + " HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
	postSignup = "POST /api/v1/auth/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	inChunks   = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
	getSlow    = "GET /api/v1/user/slow HTTP/1.1\r\nHost: x\r\n\r\n"
	getLarge   = "GET /api/v1/user/large HTTP/1.1\r\nHost: x\r\n\r\n"
)

func clientFaults() []clientFault {
	closed := (*net.TCPConn).Close
	halfClosed := (*net.TCPConn).CloseWrite
	reset := func(c *net.TCPConn) error {
		if err := c.SetLinger(0); err != nil {
			return err
		}
		return c.Close()
	}
	faults := []clientFault{
		{name: "a cancelled request", text: getSlow, then: closed},
		{name: "a reset", text: getSlow, then: reset},
		{name: "a response that is not read", text: getLarge, then: func(c *net.TCPConn) error {
			if _, err := io.ReadFull(c, make([]byte, 100)); err != nil {
				return err
			}
			return reset(c)
		}},
	}
	for where, beginning := range map[string]string{"streamed": putAvatar, "buffered": postSignup} {
		for _, f := range []clientFault{
			{name: "a malformed chunk", text: inChunks + "ZZ\r\n", status: 400, code: "malformed_body"},
			{name: "a chunk longer than its size", text: inChunks + "1\r\nhello\r\n", status: 400, code: "malformed_body"},
			{name: "a malformed trailer", text: inChunks + "0\r\nno trailer\r\n\r\n", status: 400, code: "malformed_body"},
			{name: "an endless chunk extension", text: inChunks + "1;" + strings.Repeat("x", 10_000) + "\r\n", status: 400, code: "malformed_body"},
			{name: "a body cut off", text: "Content-Length: 9\r\n\r\nhello", then: halfClosed, status: 400, code: "malformed_body"},
			{name: "chunks cut off", text: inChunks, then: halfClosed, status: 400, code: "malformed_body"},
			{name: "a body and a reset", text: "Content-Length: 9\r\n\r\nhello", then: reset},
			{name: "a stalled body", text: "Content-Length: 9\r\n\r\nhello", status: 408, code: "request_timeout"},
			{name: "stalled chunks", text: inChunks, status: 408, code: "request_timeout"},
			{name: "a body that never begins", text: "Expect: 100-continue\r\nContent-Length: 9\r\n\r\n", status: 408, code: "request_timeout"},
			{name: "too large by its length", text: "Content-Length: 6000000\r\n\r\nhello", status: 413, code: "body_too_large"},
			{name: "too large in chunks", text: "Transfer-Encoding: chunked\r\n\r\n5b8d80\r\n" + strings.Repeat("x", 6_000_000), status: 413, code: "body_too_large"},
		} {
			f.name, f.text = where+": "+f.name, beginning+f.text
			faults = append(faults, f)
		}
	}
	return faults
}

// TestSEC134ClientFaults: whatever goes wrong on the client's side of a request, the client
// gets its own error, and nothing counts against the service: its circuit breaker stays
// closed, and the next client is served.
func TestSEC134ClientFaults(t *testing.T) {
	t.Parallel()
	for _, f := range clientFaults() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			readTimeout := time.Minute
			if f.status == http.StatusRequestTimeout {
				readTimeout = 2 * time.Second
			}
			g, server := gatewayOfClients(t, readTimeout, nil)
			var sent sync.WaitGroup
			for i := range 6 { // Five failures in a row open a circuit breaker.
				sent.Go(func() { f.send(t, server.Listener.Addr().String(), i) })
			}
			sent.Wait()
			if state := g.sum("headgate_upstream_breaker_state"); state != 0 {
				t.Errorf("the state of the circuit breakers is %v, want closed", state)
			}
			for _, method := range []string{"GET", "PUT"} {
				if res, text := send(t, method, server.URL+avatar, strings.NewReader("hello")); res.StatusCode != http.StatusOK {
					t.Errorf("%s of another client = %d %s", method, res.StatusCode, text)
				}
			}
			http.DefaultClient.CloseIdleConnections()
			g.wantUnused(server)
		})
	}
}

// send fails unless the client gets the error of f in good time.
func (f clientFault) send(t *testing.T, addr string, attempt int) {
	t.Helper()
	c, ok := dial(t, addr, testkit.Timeout).(*net.TCPConn)
	if !ok {
		t.Error("not TCP")
		return
	}
	defer c.Close()
	r := bufio.NewReader(c)
	done := make(chan struct{})
	go func() { // The response may come before the end of the request.
		defer close(done)
		_, _ = io.WriteString(c, f.text)
	}()
	if f.then != nil {
		<-done
		if err := f.then(c); err != nil {
			t.Errorf("attempt %d: %v", attempt, err)
		}
	}
	if f.status == 0 {
		return
	}
	res, err := http.ReadResponse(r, nil)
	if err == nil && res.StatusCode == http.StatusContinue {
		res, err = http.ReadResponse(r, nil)
	}
	if err != nil {
		t.Errorf("attempt %d: no response: %v", attempt, err)
		return
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != f.status || f.code != "" && !strings.Contains(string(body), fmt.Sprintf(`"code":%q`, f.code)) {
		t.Errorf("attempt %d = %d %s %v, want %d %s", attempt, res.StatusCode, body, err, f.status, f.code)
	}
}

// gatewayOfClients returns a gateway that waits for a request for as long as readTimeout, in front
// of a service that waits for longer.
func gatewayOfClients(t *testing.T, readTimeout time.Duration, change func(*setup)) (*gateway, *httptest.Server) {
	t.Helper()
	service := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/user/slow":
			<-r.Context().Done()
		case "/api/v1/user/large":
			_, _ = w.Write(make([]byte, 20<<20)) // The client may hang up.
		default:
			readAll(w, r)
		}
	})
	at, err := url.Parse(service.URL)
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{t: t, issuer: testkit.NewIssuer(t), upstream: newFakeService(t)}
	server := httptest.NewUnstartedServer(handlerFor(t, g, testkit.Redis(t), api.RateLimits{}, func(s *setup) {
		s.addresses["auth"], s.addresses["user"] = upstream.Addresses{at}, upstream.Addresses{at}
		s.routes = []api.Route{{Path: "/api/v1/auth", Service: "auth"}, {Path: "/api/v1/user", Service: "user"}}
		if change != nil {
			change(s)
		}
	}))
	server.Config.ReadTimeout = readTimeout
	server.Start()
	t.Cleanup(server.Close)
	return g, server
}

// TestSEC134ShareOfAClient: a client that is slow to send or to read occupies its share of the
// requests in flight, and all others are served.
func TestSEC134ShareOfAClient(t *testing.T) {
	t.Parallel()
	const share = 3
	for name, slow := range map[string]string{"sending": putAvatar + "Content-Length: 9\r\nAuthorization: ", "reading": strings.TrimSuffix(getLarge, "\r\n") + "Authorization: "} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, server := gatewayOfClients(t, time.Minute, func(s *setup) { s.upstream.MaxPerUser, s.upstream.MaxInFlight = share, share+1 })
			greedy, other := g.bearer(), g.bearer()
			for range share {
				c := dial(t, server.Listener.Addr().String(), testkit.Timeout)
				fmt.Fprintf(c, "%s%s\r\n\r\n", slow, greedy)
			}
			testkit.Eventually(t, func() error {
				if n := g.sum("headgate_upstream_requests_in_flight"); n != share {
					return fmt.Errorf("%v requests are in flight, want %d", n, share)
				}
				return nil
			})
			res, text := send(t, "GET", server.URL+"/api/v1/user/me", http.NoBody, "Authorization", greedy)
			if res.StatusCode != http.StatusTooManyRequests || !strings.Contains(text, `"code":"too_many_concurrent_requests"`) || res.Header.Get("Retry-After") == "" {
				t.Errorf("one more of the same user = %d %s", res.StatusCode, text)
			}
			for _, header := range [][]string{{"Authorization", other}, nil} {
				if res, text := send(t, "GET", server.URL+"/api/v1/user/me", http.NoBody, header...); res.StatusCode != http.StatusOK {
					t.Errorf("another client = %d %s", res.StatusCode, text)
				}
			}
		})
	}
}
