package api_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/api"
)

// exposed serves g as its program does and returns host and port.
func exposed(t *testing.T, g *gateway, change func(*setup)) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := web.NewServer(web.Listener{}, handlerFor(t, g, testkit.Redis(t), api.RateLimits{}, change), testkit.Log(t))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// dial returns a connection that ends after timeout at the latest.
func dial(t *testing.T, addr string, timeout time.Duration) net.Conn {
	t.Helper()
	var dialer net.Dialer
	c, err := dialer.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		t.Fatal(err)
	}
	return c
}

// exchange sends text as it is and returns the answers up to the end of the
// connection; open says that the server did not end it.
func exchange(t *testing.T, addr, text string) (answers []answer, open bool) {
	t.Helper()
	c := dial(t, addr, 2*time.Second)
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	for r := bufio.NewReader(c); ; {
		res, err := http.ReadResponse(r, nil)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return answers, true
		case err != nil:
			return answers, false
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatalf("read the body of an answer of status %d: %v", res.StatusCode, err)
		}
		a := answer{status: res.StatusCode, header: res.Header, body: string(body)}
		answers = append(answers, a)
	}
}

// TestSEC44Smuggling: whatever a request says about its length, no part of it is taken for
// a second request, and an ambiguous connection is closed.
func TestSEC44Smuggling(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.RateLimits{})
	addr := exposed(t, g, nil)
	const (
		smuggled = "GET /api/v1/auth/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
		post     = "POST /api/v1/auth/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
		chunked  = "2\r\n{}\r\n0\r\n\r\n"
	)
	for name, tc := range map[string]struct {
		text   string
		status int
	}{
		"length and chunks":                   {post + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked + smuggled, 200},
		"chunks and length":                   {post + "Transfer-Encoding: chunked\r\nContent-Length: 200\r\n\r\n" + chunked + smuggled, 200},
		"chunks alone":                        {post + "Transfer-Encoding: chunked\r\n\r\n" + chunked + smuggled, 200},
		"an encoding nobody knows":            {post + "Transfer-Encoding: xchunked\r\nContent-Length: 2\r\n\r\n{}" + smuggled, 501},
		"chunked behind something":            {post + "Transfer-Encoding: identity, chunked\r\n\r\n" + chunked + smuggled, 501},
		"chunked before something":            {post + "Transfer-Encoding: chunked, identity\r\n\r\n" + chunked + smuggled, 501},
		"chunked twice":                       {post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked + smuggled, 501},
		"two encodings":                       {post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n" + chunked + smuggled, 501},
		"a space before the colon":            {post + "Transfer-Encoding : chunked\r\nContent-Length: 2\r\n\r\n{}" + smuggled, 400},
		"a tab in the name":                   {post + "Transfer-Encoding\t: chunked\r\nContent-Length: 2\r\n\r\n{}" + smuggled, 400},
		"a vertical tab before it":            {post + "Transfer-Encoding: \vchunked\r\n\r\n" + chunked + smuggled, 400},
		"a folded line":                       {post + "Transfer-Encoding:\r\n chunked\r\n\r\n" + chunked + smuggled, 200},
		"a header before any name":            {"POST /api/v1/auth/signup HTTP/1.1\r\n Host: x\r\nContent-Length: 2\r\n\r\n{}" + smuggled, 400},
		"two lengths":                         {post + "Content-Length: 2\r\nContent-Length: 50\r\n\r\n{}" + smuggled, 400},
		"two lengths in a line":               {post + "Content-Length: 2, 50\r\n\r\n{}" + smuggled, 400},
		"a length with a sign":                {post + "Content-Length: +2\r\n\r\n{}" + smuggled, 400},
		"a negative length":                   {post + "Content-Length: -2\r\n\r\n{}" + smuggled, 400},
		"a length with a space in it":         {post + "Content-Length: 2 0\r\n\r\n{}" + smuggled, 400},
		"a length in hex":                     {post + "Content-Length: 0x2\r\n\r\n{}" + smuggled, 400},
		"a length beyond all":                 {post + "Content-Length: 99999999999999999999\r\n\r\n{}" + smuggled, 400},
		"a bare carriage return":              {post + "X-A: b\rTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}" + smuggled, 400},
		"a zero byte":                         {post + "X-A: b\x00c\r\nContent-Length: 2\r\n\r\n{}" + smuggled, 400},
		"a chunk of a size with a sign":       {post + "Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n" + smuggled, 400},
		"a chunk of a size in 0x":             {post + "Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n" + smuggled, 400},
		"a chunk size that overflows":         {post + "Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\n" + smuggled, 400},
		"a chunk size that ends in a newline": {post + "Transfer-Encoding: chunked\r\n\r\n2;x\n{}\r\n0\r\n\r\n" + smuggled, 400},
		"a chunk longer than its size":        {post + "Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n" + smuggled, 400},
		"an extension without end":            {post + "Transfer-Encoding: chunked\r\n\r\n2;" + strings.Repeat("x", 10000) + "\r\n{}\r\n0\r\n\r\n" + smuggled, 400},
		"HTTP/1.0 in chunks":                  {strings.Replace(post, "HTTP/1.1", "HTTP/1.0", 1) + "Transfer-Encoding: chunked\r\n\r\n" + chunked + smuggled, 0},
		"no host":                             {"GET /api/v1/auth/x HTTP/1.1\r\n\r\n" + smuggled, 400},
		"two hosts":                           {"GET /api/v1/auth/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + smuggled, 400},
		"HTTP/2 with prior knowledge":         {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 405},
		"a version nobody knows":              {"GET /api/v1/auth/x HTTP/3.7\r\nHost: x\r\n\r\n" + smuggled, 505},
		"an expectation nobody knows":         {"GET /api/v1/auth/x HTTP/1.1\r\nHost: x\r\nExpect: more\r\n\r\n" + smuggled, 417},
		"the server as a whole":               {"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + smuggled, 405},
		"a header beyond the limit":           {"GET /api/v1/auth/x HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("x", 30<<10) + "\r\n\r\n", 431},
	} {
		_, _, before := g.upstream.got()
		answers, open := exchange(t, addr, tc.text)
		for _, got := range g.upstream.since(before) {
			if strings.Contains(got, "smuggled") {
				t.Errorf("%s: the service got %s", name, got)
			}
		}
		if open {
			t.Errorf("%s: the connection stays open", name)
		}
		if len(answers) != 1 || tc.status != 0 && answers[0].status != tc.status {
			t.Errorf("%s: %d answers, want one of status %d: %+v", name, len(answers), tc.status, answers)
			continue
		}
		if a := answers[0]; a.status >= 400 && (!strings.HasPrefix(a.body, `{"success":false,`) || a.header.Get("Content-Type") != "application/json; charset=utf-8" ||
			a.header.Get("X-Request-Id") == "" || !strings.Contains(a.body, a.header.Get("X-Request-Id"))) {
			t.Errorf("%s: not the envelope: %+v", name, a)
		}
	}
}

// TestSEC44Pipelining: two requests in a row on one connection get a response each.
func TestSEC44Pipelining(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.RateLimits{})
	answers, _ := exchange(t, exposed(t, g, nil),
		"POST /api/v1/auth/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"+
			"GET /api/v1/auth/second HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if got := g.upstream.since(0); len(answers) != 2 || !slices.Equal(got, []string{"POST /api/v1/auth/signup", "GET /api/v1/auth/second"}) {
		t.Errorf("%d answers, the service got %q", len(answers), got)
	}
}

// TestSEC43Overrides: only the request line determines the method.
func TestSEC43Overrides(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.RateLimits{})
	a := g.do("POST", "/api/v1/auth/signup?_method=DELETE", "{}", "Content-Type", "application/json",
		"X-Http-Method-Override", "DELETE", "X-Http-Method", "DELETE", "X-Method-Override", "DELETE")
	got, _, _ := g.upstream.got()
	if a.status != 200 || got.Method != http.MethodPost {
		t.Errorf("= %d, the service got %s", a.status, got.Method)
	}
	for name := range got.Header {
		if strings.Contains(strings.ToLower(name), "method") {
			t.Errorf("the service got %s", name)
		}
	}
	head := g.do("HEAD", "/health", "")
	get := g.do("GET", "/health", "")
	if head.status != 200 || head.body != "" || head.header.Get("Content-Type") != get.header.Get("Content-Type") {
		t.Errorf("HEAD = %d %q %v", head.status, head.body, head.header)
	}
	if a := g.do("CONNECT", "/api/v1/auth/login", ""); a.status != 405 {
		t.Errorf("CONNECT = %d", a.status)
	}
}

// TestSEC46And47Bodies: a body over its limit is rejected however it is sent, and none is
// inflated.
func TestSEC46And47Bodies(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.RateLimits{})
	addr := exposed(t, g, nil)
	const size = 6 << 20
	var chunks strings.Builder
	for range size / (64 << 10) {
		fmt.Fprintf(&chunks, "%x\r\n%s\r\n", 64<<10, strings.Repeat("x", 64<<10))
	}
	for path, headers := range map[string]string{
		"POST /api/v1/auth/signup":    "Content-Type: application/json\r\n",
		"PUT /api/v1/user/me/avatar":  "Content-Type: image/png\r\nAuthorization: " + g.bearer() + "\r\n",
		"PATCH /api/v1/user/me":       "Content-Type: application/json\r\nAuthorization: " + g.bearer() + "\r\n",
		"PUT /api/v1/user/me/avatar/": "Content-Type: image/png\r\nAuthorization: " + g.bearer() + "\r\n",
	} {
		for how, rest := range map[string]string{
			"with a length": fmt.Sprintf("Content-Length: %d\r\n\r\n", size),
			"in chunks":     "Transfer-Encoding: chunked\r\n\r\n" + chunks.String() + "0\r\n\r\n",
		} {
			a := firstAnswer(t, addr, path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"+headers+rest)
			if a.status != 413 || !strings.Contains(a.body, `"code":"body_too_large"`) {
				t.Errorf("%s of %d bytes %s: %+v", path, size, how, a)
			}
		}
	}
	for _, encoding := range []string{"gzip", "br", "deflate", "identity, gzip"} {
		if a := g.do("POST", "/api/v1/auth/signup", "{}", "Content-Type", "application/json", "Content-Encoding", encoding); a.status != 415 {
			t.Errorf("Content-Encoding: %s = %d", encoding, a.status)
		}
	}
}

// firstAnswer sends text, of which the server may not read all, and returns what it
// answers.
func firstAnswer(t *testing.T, addr, text string) answer {
	t.Helper()
	c := dial(t, addr, testkit.Timeout)
	go func() { _, _ = io.WriteString(c, text) }() // The answer says what became of it.
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{status: res.StatusCode, header: res.Header, body: string(body)}
}
