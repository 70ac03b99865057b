package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/upstream"
)

// The errors of requests that a service did not answer.
var (
	ErrBadGateway = problem.New(problem.BadGateway, "bad_gateway", "The service sent an invalid response. Try again later.").WithRetryAfter(time.Second)
	ErrTimeout    = problem.New(problem.Timeout, "gateway_timeout", "The service did not respond in time. Try again later.").WithRetryAfter(time.Second)
)

// proxy passes requests on to one service, and the responses back.
type proxy struct {
	service *upstream.Service
	upgrade bool // Whether connections may switch protocols.
}

func (p proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out := *r
	target := *r.URL
	out.URL, out.Host, out.Close, out.Trailer = &target, "", false, nil
	if r.ContentLength == 0 {
		out.Body = http.NoBody
	}
	var body *streamedBody // nil unless the body is streamed
	if r.GetBody == nil && r.ContentLength != 0 {
		body = &streamedBody{ReadCloser: r.Body}
		out.Body = body
	}
	edit := requestEdit(r)
	// HTTP/1.0 has no Upgrade, and bytes of a streamed body could be taken for the other
	// protocol (RFC 9110, 7.8).
	if p.upgrade && body == nil && r.ProtoAtLeast(1, 1) && httpguts.HeaderValuesContainsToken(r.Header["Connection"], "Upgrade") {
		edit.Add = append(edit.Add, upstream.Field{Name: "Connection", Value: "Upgrade"}, upstream.Field{Name: "Upgrade", Value: r.Header.Get("Upgrade")})
	}
	began := time.Now()
	res, err := p.service.Do(&out, edit, upstream.Client{User: web.UserOf(r.Context()), Network: event.OriginFrom(r.Context()).Network()})
	web.SetUpstream(r.Context(), time.Since(began))
	if body != nil && !body.read.Load() {
		// The service responded or failed early: net/http would wait for the rest of the
		// request first.
		w.Header()["Connection"] = []string{"close"}
		defer func() { _ = http.NewResponseController(w).SetReadDeadline(time.Now()) }()
	}
	if err != nil {
		failUpstream(w, r, err)
		return
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusSwitchingProtocols {
		switchProtocols(w, r, res)
		return
	}
	copyResponse(w, r, res)
}

var errSwitched = errors.New("unexpected protocol switch")

// switchProtocols connects the client with the service until one of them ends the connection.
func switchProtocols(w http.ResponseWriter, r *http.Request, res *http.Response) {
	service, ok := res.Body.(io.ReadWriteCloser)
	if !ok || !strings.EqualFold(res.Header.Get("Upgrade"), r.Header.Get("Upgrade")) {
		failUpstream(w, r, errSwitched)
		return
	}
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		failUpstream(w, r, err)
		return
	}
	defer client.Close()
	h := w.Header()
	copyHeader(h, res)
	h["Connection"], h["Upgrade"] = []string{"Upgrade"}, res.Header["Upgrade"]
	answer := http.Response{StatusCode: res.StatusCode, ProtoMajor: 1, ProtoMinor: 1, Header: h}
	if errors.Join(answer.Write(buffered), buffered.Flush()) != nil {
		return // The client has gone.
	}
	var both sync.WaitGroup
	pass := func(to io.WriteCloser, from io.Reader, other io.Closer) {
		_, _ = io.Copy(to, from) // It ends with either connection.
		_, _ = to.Close(), other.Close()
	}
	both.Go(func() { pass(service, buffered, client) })
	both.Go(func() { pass(client, service, service) })
	both.Wait()
}

// streamedBody knows whether it was read completely.
type streamedBody struct {
	io.ReadCloser

	read atomic.Bool
}

func (b *streamedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.read.Store(true)
	}
	return n, err
}

// hopByHop are the headers that apply to one connection only (RFC 9110, 7.6.1), and
// Expect, which the gateway handles itself.
var hopByHop = map[string]bool{
	"Connection": true, "Proxy-Connection": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Authorization": true,
	"Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true, "Expect": true,
}

// gatewayHeaders are response headers that a service must not set.
var gatewayHeaders = []string{"X-Request-Id", "X-Content-Type-Options", "Strict-Transport-Security", "Server", "X-Powered-By"}

// connectionOptions returns the further headers that h declares to be hop-by-hop. Neither side
// must use it to remove headers on which the other relies. It is a map because a client can
// list thousands, and send as many headers to compare with them.
func connectionOptions(h http.Header) map[string]bool {
	lines := h["Connection"]
	if len(lines) == 0 || len(lines) == 1 && strings.EqualFold(lines[0], "keep-alive") {
		return nil
	}
	options := map[string]bool{}
	for _, line := range lines {
		for option := range strings.SplitSeq(line, ",") {
			options[http.CanonicalHeaderKey(strings.TrimSpace(option))] = true
		}
	}
	return options
}

// requestEdit returns the changes to the header of r on its way to the service: it removes
// hop-by-hop headers and those that could be taken for the gateway's own, and adds the
// latter.
func requestEdit(r *http.Request) upstream.Edit {
	options := connectionOptions(r.Header)
	origin := event.OriginFrom(r.Context())
	proto := "http"
	if r.TLS != nil {
		proto = "https"
	}
	return upstream.Edit{
		Omit: func(name string) bool {
			return hopByHop[name] || spoofable(name) || name != "Authorization" && options[name]
		},
		Add: []upstream.Field{
			{Name: "X-Forwarded-For", Value: origin.IP},
			{Name: "X-Forwarded-Host", Value: r.Host},
			{Name: "X-Forwarded-Proto", Value: proto},
			{Name: "X-Request-Id", Value: origin.RequestID},
			{Name: "Traceparent", Value: origin.TraceParent},
		},
	}
}

// spoofable reports whether a client could impersonate another user by a header, in any
// spelling that some server treats as the same.
func spoofable(name string) bool {
	switch name[0] {
	case 'X', 'x', 'F', 'f', 'T', 't':
	default:
		return false
	}
	plain := strings.ReplaceAll(strings.ToLower(name), "_", "-")
	switch plain {
	case "forwarded", "x-real-ip", "x-original-url", "x-rewrite-url", "x-http-method", "x-http-method-override", "x-method-override", "x-request-id", "traceparent", "tracestate":
		return true
	}
	return strings.HasPrefix(plain, "x-forwarded-") || strings.HasPrefix(plain, "x-user-") || strings.HasPrefix(plain, "x-internal-")
}

// copyResponse passes on the service's response, without its trailers.
func copyResponse(w http.ResponseWriter, r *http.Request, res *http.Response) {
	buffer, _ := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buffer)
	n, err := readBeginning(res, buffer[:])
	if err != nil && !errors.Is(err, io.EOF) {
		failUpstream(w, r, err)
		return
	}
	copyHeader(w.Header(), res)
	w.WriteHeader(res.StatusCode)
	if eventStream(res) {
		_ = http.NewResponseController(w).Flush() // The first event may take long.
	}
	if err := copyBody(w, res, buffer[:], n, err); err != nil {
		level := slog.LevelWarn
		if r.Context().Err() != nil {
			level = slog.LevelDebug // The client has gone.
		}
		web.Log(r.Context()).Log(r.Context(), level, "response interrupted", "error", err.Error())
		panic(http.ErrAbortHandler) // The client must see that the response is incomplete.
	}
}

// copyHeader copies the header of res to h. It replaces what the gateway sets by default,
// because the service knows best what its page needs, but cannot remove it.
func copyHeader(h http.Header, res *http.Response) {
	options := connectionOptions(res.Header)
	for name, values := range res.Header {
		switch {
		case hopByHop[name], slices.Contains(gatewayHeaders, name):
		case options[name] && !endToEnd(name):
		case len(h[name]) > 0 && values[0] == "":
		case name == "Content-Length" && res.StatusCode == http.StatusNoContent:
		case name == "Vary":
			h[name] = append(h[name], values...)
		default:
			h[name] = values
		}
	}
}

// endToEnd reports whether a response would be read differently without the header.
func endToEnd(name string) bool {
	return strings.HasPrefix(name, "Content-") || name == "Cache-Control"
}

func eventStream(res *http.Response) bool {
	return strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream")
}

const bufferSize = 32 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// readBeginning reads the beginning of the body before the header is passed on: if it fails,
// the client gets an error instead of half a response.
func readBeginning(res *http.Response, buffer []byte) (int, error) {
	switch {
	case res.Body == http.NoBody:
		return 0, io.EOF
	case eventStream(res):
		return 0, nil
	case res.ContentLength >= 0:
		return io.ReadFull(res.Body, buffer[:min(res.ContentLength, int64(len(buffer)))])
	}
	return res.Body.Read(buffer)
}

// copyBody passes on the first n bytes, which are in buffer, and the rest of the body unless
// err says that there is none. If its length is unknown, copyBody flushes every read, because
// the body may be an endless stream.
func copyBody(w http.ResponseWriter, res *http.Response, buffer []byte, n int, err error) error {
	for {
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				return err
			}
			if res.ContentLength < 0 {
				if err := http.NewResponseController(w).Flush(); err != nil {
					return err
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		n, err = res.Body.Read(buffer)
	}
}

func failUpstream(w http.ResponseWriter, r *http.Request, err error) {
	netErr, isNet := errors.AsType[net.Error](err)
	body, isBody := errors.AsType[upstream.BodyError](err)
	switch {
	case isBody:
		// net/http cancels the request, too, but the client may still read the response.
		err = web.BodyFault(body)
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil:
		// The client has closed the request; Fail logs it at debug level.
	case errors.Is(err, upstream.ErrUnavailable), errors.Is(err, upstream.ErrOverloaded), errors.Is(err, upstream.ErrTooMany):
	case errors.Is(err, context.DeadlineExceeded), isNet && netErr.Timeout():
		err = errors.Join(ErrTimeout, err)
	default:
		err = errors.Join(ErrBadGateway, err)
	}
	web.Fail(w, r, err)
}
