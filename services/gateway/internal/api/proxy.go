package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
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

// proxy passes requests on to one service, and the responses back. It does what
// httputil.ReverseProxy does, without copying every header and tracing every request;
// ReverseProxy itself handles protocol upgrades.
type proxy struct {
	service  *upstream.Service
	upgrades *httputil.ReverseProxy // nil if upgrades are not allowed
}

func newProxy(service *upstream.Service) *proxy { return &proxy{service: service} }

// allowUpgrade lets requests switch protocols.
func (p *proxy) allowUpgrade(log *slog.Logger) {
	p.upgrades = &httputil.ReverseProxy{
		// Rewrite, not Director: a Director runs before the hop-by-hop headers are removed, so
		// a client could remove the gateway's own headers by naming them in Connection.
		Rewrite: func(r *httputil.ProxyRequest) {
			kind := r.Out.Header.Get("Upgrade")
			r.Out.Header = requestEdit(r.In).Apply(r.In.Header)
			r.Out.Header["Connection"], r.Out.Header["Upgrade"] = []string{"Upgrade"}, []string{kind}
			r.Out.Host = ""
		},
		ModifyResponse: func(res *http.Response) error {
			for _, name := range gatewayHeaders {
				res.Header.Del(name)
			}
			return nil
		},
		Transport:    p.service,
		ErrorLog:     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ErrorHandler: failUpstream,
	}
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p.upgrades != nil && httpguts.HeaderValuesContainsToken(r.Header["Connection"], "Upgrade") {
		p.upgrades.ServeHTTP(w, r)
		return
	}
	out := *r
	target := *r.URL
	out.URL, out.Host, out.Close = &target, "", false
	if r.ContentLength == 0 {
		out.Body = http.NoBody
	}
	var body *streamedBody // nil unless the body is streamed
	if r.GetBody == nil && r.ContentLength != 0 {
		body = &streamedBody{ReadCloser: r.Body}
		out.Body = body
	}
	began := time.Now()
	res, err := p.service.Do(&out, requestEdit(r), func(status int, header http.Header) { forwardInformational(w, status, header) })
	web.SetUpstream(r.Context(), time.Since(began))
	if err != nil {
		failUpstream(w, r, err)
		return
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusSwitchingProtocols {
		failUpstream(w, r, errSwitched)
		return
	}
	if body != nil && !body.read.Load() {
		// The service responded early: net/http would wait for the rest of the request first.
		w.Header()["Connection"] = []string{"close"}
		defer func() { _ = http.NewResponseController(w).SetReadDeadline(time.Now()) }()
	}
	copyResponse(w, r, res)
}

var errSwitched = errors.New("unexpected protocol switch")

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
var gatewayHeaders = []string{"X-Request-Id", "Server", "X-Powered-By"}

// connectionOptions returns the further headers that h declares to be hop-by-hop. A client
// must not use it to remove headers on which the service relies.
func connectionOptions(h http.Header) []string {
	lines := h["Connection"]
	if len(lines) == 0 || len(lines) == 1 && strings.EqualFold(lines[0], "keep-alive") {
		return nil
	}
	var options []string
	for _, line := range lines {
		for option := range strings.SplitSeq(line, ",") {
			options = append(options, http.CanonicalHeaderKey(strings.TrimSpace(option)))
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
	edit := upstream.Edit{
		Omit: func(name string) bool {
			return hopByHop[name] || spoofable(name) || name != "Authorization" && slices.Contains(options, name)
		},
		Add: []upstream.Field{
			{Name: "X-Forwarded-For", Value: origin.IP},
			{Name: "X-Forwarded-Host", Value: r.Host},
			{Name: "X-Forwarded-Proto", Value: proto},
			{Name: "X-Request-Id", Value: origin.RequestID},
			{Name: "Traceparent", Value: origin.TraceParent},
		},
	}
	if httpguts.HeaderValuesContainsToken(r.Header["Te"], "trailers") {
		edit.Add = append(edit.Add, upstream.Field{Name: "Te", Value: "trailers"})
	}
	return edit
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

// forwardInformational passes on a response of status 1xx.
func forwardInformational(w http.ResponseWriter, status int, header http.Header) {
	h := w.Header()
	before := h.Clone()
	maps.Copy(h, header)
	w.WriteHeader(status)
	clear(h) // They must not be sent again with the final response.
	maps.Copy(h, before)
}

// copyResponse passes on the service's response. Its headers replace those that the gateway
// sets by default: the service knows best what its page needs.
func copyResponse(w http.ResponseWriter, r *http.Request, res *http.Response) {
	h := w.Header()
	options := connectionOptions(res.Header)
	for name, values := range res.Header {
		switch {
		case hopByHop[name]:
		case name == "Vary":
			h[name] = append(h[name], values...)
		default:
			h[name] = values
		}
	}
	for _, option := range options {
		delete(h, option)
	}
	for _, name := range gatewayHeaders[1:] {
		delete(h, name)
	}
	h["X-Request-Id"] = []string{event.OriginFrom(r.Context()).RequestID}
	announced := make(map[string]bool, len(res.Trailer))
	for name := range res.Trailer {
		announced[name] = true
		h.Add("Trailer", name)
	}
	w.WriteHeader(res.StatusCode)
	if res.Body == http.NoBody {
		return
	}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		_ = http.NewResponseController(w).Flush() // The first event may take long.
	}
	if err := copyBody(w, res); err != nil {
		web.Log(r.Context()).WarnContext(r.Context(), "response interrupted", "error", err.Error())
		panic(http.ErrAbortHandler) // The client must see that the response is incomplete.
	}
	if len(res.Trailer) > 0 {
		_ = http.NewResponseController(w).Flush() // Otherwise a short response gets a Content-Length and no trailers.
	}
	for name, values := range res.Trailer {
		if !announced[name] {
			name = http.TrailerPrefix + name
		}
		h[name] = values
	}
}

const bufferSize = 32 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// copyBody passes on the body. If its length is unknown, it flushes every read, because the
// body may be an endless stream.
func copyBody(w http.ResponseWriter, res *http.Response) error {
	buffer, _ := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buffer)
	for {
		n, err := res.Body.Read(buffer[:])
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
	}
}

func failUpstream(w http.ResponseWriter, r *http.Request, err error) {
	netErr, isNet := errors.AsType[net.Error](err)
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	switch {
	case tooLarge:
		err = problem.ErrTooLarge
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil:
		// The client has closed the request; Fail logs it at debug level.
	case errors.Is(err, upstream.ErrUnavailable), errors.Is(err, upstream.ErrOverloaded):
	case errors.Is(err, context.DeadlineExceeded), isNet && netErr.Timeout():
		err = errors.Join(ErrTimeout, err)
	default:
		err = errors.Join(ErrBadGateway, err)
	}
	web.Fail(w, r, err)
}
