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

// The failures of the services behind the gateway.
var (
	ErrBadGateway = problem.New(problem.BadGateway, "bad_gateway", "The service behind this address did not answer properly.").WithRetryAfter(time.Second)
	ErrTimeout    = problem.New(problem.Timeout, "gateway_timeout", "The service behind this address did not answer in time.").WithRetryAfter(time.Second)
)

// proxy passes requests on to one service, and the answers back. It does what
// httputil.ReverseProxy does, without a copy of every header and a trace for every
// request; ReverseProxy itself takes what switches protocols.
type proxy struct {
	service  *upstream.Service
	switched *httputil.ReverseProxy // nil where no route may
}

func newProxy(service *upstream.Service, upgrade bool, log *slog.Logger) *proxy {
	p := &proxy{service: service}
	if upgrade {
		p.switched = &httputil.ReverseProxy{
			// Rewrite, not Director: with a Director the client could have the gateway's
			// own headers removed by naming them in Connection (TRAPS T11).
			Rewrite: func(r *httputil.ProxyRequest) {
				kind := r.Out.Header.Get("Upgrade")
				r.Out.Header = onward(r.In).Apply(r.In.Header)
				r.Out.Header["Connection"], r.Out.Header["Upgrade"] = []string{"Upgrade"}, []string{kind}
				r.Out.Host = ""
			},
			ModifyResponse: func(res *http.Response) error {
				for _, name := range own {
					res.Header.Del(name)
				}
				return nil
			},
			Transport:    service,
			ErrorLog:     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
			ErrorHandler: failed,
		}
	}
	return p
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p.switched != nil && httpguts.HeaderValuesContainsToken(r.Header["Connection"], "Upgrade") {
		p.switched.ServeHTTP(w, r)
		return
	}
	out := *r
	target := *r.URL
	out.URL, out.Host, out.Close = &target, "", false
	if r.ContentLength == 0 {
		out.Body = http.NoBody
	}
	var body *streamedBody // nil if nothing of it is left to be read
	if r.GetBody == nil && r.ContentLength != 0 {
		body = &streamedBody{ReadCloser: r.Body}
		out.Body = body
	}
	began := time.Now()
	res, err := p.service.Do(&out, onward(r), func(status int, header http.Header) { inform(w, status, header) })
	web.SetUpstream(r.Context(), time.Since(began))
	if err != nil {
		failed(w, r, err)
		return
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusSwitchingProtocols {
		failed(w, r, errSwitched)
		return
	}
	if body != nil && !body.read.Load() {
		// Answered early: net/http would wait for the rest of the request first.
		w.Header()["Connection"] = []string{"close"}
		defer func() { _ = http.NewResponseController(w).SetReadDeadline(time.Now()) }()
	}
	answer(w, r, res)
}

var errSwitched = errors.New("the service switched protocols unasked")

// streamedBody knows whether it was read to its end.
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

// hopByHop are the headers that are between two neighbours (RFC 9110, 7.6.1), and
// Expect, which the gateway has met by itself.
var hopByHop = map[string]bool{
	"Connection": true, "Proxy-Connection": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Authorization": true,
	"Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true, "Expect": true,
}

// own are headers of answers that the gateway alone sets, or nobody.
var own = []string{"X-Request-Id", "Server", "X-Powered-By"}

// connectionOptions returns what else a header says is between two neighbours. A
// client must not take away by it what the service relies on.
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

// onward returns how the header of r differs on its way to the service: without what
// stays between neighbours and what could pass for the gateway's word, and with that.
func onward(r *http.Request) upstream.Edit {
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

// spoofable reports whether a client could pass for somebody else by a header, in
// any spelling that some server reads as the same.
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

// inform passes an answer of status 1xx on.
func inform(w http.ResponseWriter, status int, header http.Header) {
	h := w.Header()
	before := h.Clone()
	maps.Copy(h, header)
	w.WriteHeader(status)
	clear(h) // WriteHeader leaves them for the final answer, whose they are not.
	maps.Copy(h, before)
}

// answer passes the service's answer on. Its headers take the place of those that
// the gateway would set by itself: the service knows better what its page needs.
func answer(w http.ResponseWriter, r *http.Request, res *http.Response) {
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
	for _, name := range own[1:] {
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
		_ = http.NewResponseController(w).Flush() // The first event may be long in coming.
	}
	if err := copyBody(w, res); err != nil {
		web.Log(r.Context()).WarnContext(r.Context(), "answer broken off", "error", err.Error())
		panic(http.ErrAbortHandler) // The client must see that it is not complete.
	}
	if len(res.Trailer) > 0 {
		_ = http.NewResponseController(w).Flush() // Or a short answer would get a length, and no trailers.
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

// copyBody passes the body on; each piece at once if nobody knows how long it is,
// for it may be one that never ends.
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

func failed(w http.ResponseWriter, r *http.Request, err error) {
	netErr, isNet := errors.AsType[net.Error](err)
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	switch {
	case tooLarge:
		err = problem.ErrTooLarge
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil:
		// The client has gone; Fail notes it quietly.
	case errors.Is(err, upstream.ErrUnavailable), errors.Is(err, upstream.ErrOverloaded):
	case errors.Is(err, context.DeadlineExceeded), isNet && netErr.Timeout():
		err = errors.Join(ErrTimeout, err)
	default:
		err = errors.Join(ErrBadGateway, err)
	}
	web.Fail(w, r, err)
}
