package web

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
)

// Meta describes a page of a list.
type Meta struct {
	Limit      int    `json:"limit"`
	NextCursor string `json:"nextCursor,omitempty"`
	HasMore    bool   `json:"hasMore"`
}

type success struct {
	Success bool  `json:"success"`
	Data    any   `json:"data"`
	Meta    *Meta `json:"meta,omitempty"`
}

type failure struct {
	Success   bool            `json:"success"`
	Message   string          `json:"message"`
	Code      string          `json:"code"`
	RequestID string          `json:"requestId"`
	Errors    []problem.Field `json:"errors,omitempty"`
	Error     string          `json:"error,omitempty"`
}

// problemDetails is a failure in the format of RFC 9457.
type problemDetails struct {
	Type      string          `json:"type"`
	Title     string          `json:"title"`
	Status    int             `json:"status"`
	Detail    string          `json:"detail"`
	Code      string          `json:"code"`
	RequestID string          `json:"requestId"`
	Errors    []problem.Field `json:"errors,omitempty"`
	Error     string          `json:"error,omitempty"`
}

// OK responds with status and with data in the envelope.
func OK(w http.ResponseWriter, status int, data any) error {
	return writeJSON(w, status, "application/json; charset=utf-8", success{Success: true, Data: data})
}

// List responds with one page of a list.
func List(w http.ResponseWriter, items any, meta Meta) error {
	return writeJSON(w, http.StatusOK, "application/json; charset=utf-8", success{Success: true, Data: items, Meta: &meta})
}

func writeJSON(w http.ResponseWriter, status int, contentType string, body any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(data)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // The client has gone, so the error can be ignored.
	return nil
}

// ProblemOf returns the problem that a client may see of err. An error that is not a
// problem is problem.ErrUnavailable if a dependency is unavailable, else an internal error.
func ProblemOf(ctx context.Context, err error) *problem.Problem {
	p, info := problem.From(err), requestInfoFrom(ctx)
	if p.Kind == problem.Internal && info.unavailable != nil && info.unavailable(err) {
		return problem.ErrUnavailable
	}
	return p
}

// WithPage returns err with an HTML page for browsers: Fail calls render instead of writing
// the envelope. render must not fail after it has begun to write.
func WithPage(err error, render func(w http.ResponseWriter, status int) error) error {
	return pageError{err, render}
}

type pageError struct {
	error
	render func(w http.ResponseWriter, status int) error
}

func (p pageError) Unwrap() error { return p.error }

// Fail responds with ProblemOf err. It logs errors of the server in full.
func Fail(w http.ResponseWriter, r *http.Request, err error) {
	ctx := r.Context()
	info := requestInfoFrom(ctx)
	p := ProblemOf(ctx, err)
	switch {
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		info.log.DebugContext(ctx, "client closed request", "error", err.Error())
		info.code = "client_gone"
		w.WriteHeader(statusClientClosedRequest)
		return
	case p.Kind == problem.Internal:
		info.log.ErrorContext(ctx, "request failed", "error", err.Error())
	case p.Kind >= problem.BadGateway:
		info.log.WarnContext(ctx, "request failed", "error", err.Error())
	}
	info.code = p.Code
	writeError(w, r, p, err)
}

// writeError responds with p, which is ProblemOf err.
func writeError(w http.ResponseWriter, r *http.Request, p *problem.Problem, err error) {
	ctx := r.Context()
	info := requestInfoFrom(ctx)
	status := Status(p.Kind)
	if status == http.StatusUnauthorized && w.Header().Get("WWW-Authenticate") == "" {
		w.Header().Set("WWW-Authenticate", "Bearer") // RFC 9110, 15.5.2
	}
	if wait := p.RetryAfter; wait > 0 || status >= http.StatusBadGateway || status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(wait.Seconds())))))
	}
	if page, ok := errors.AsType[pageError](err); ok {
		fault := page.render(w, status)
		if fault == nil {
			return
		}
		info.log.ErrorContext(ctx, "error page failed", "error", fault.Error())
	}
	detail := ""
	if info.development && err.Error() != p.Error() {
		detail = err.Error()
	}
	id := event.OriginFrom(ctx).RequestID
	if acceptsProblemJSON(r) {
		_ = writeJSON(w, status, "application/problem+json; charset=utf-8", problemDetails{
			Type: "urn:headgate:problem:" + p.Code, Title: http.StatusText(status), Status: status,
			Detail: p.Message, Code: p.Code, RequestID: id, Errors: p.Fields, Error: detail,
		}) // Its parts always encode.
		return
	}
	_ = writeJSON(w, status, "application/json; charset=utf-8", failure{
		Message: p.Message, Code: p.Code, RequestID: id, Errors: p.Fields, Error: detail,
	}) // Its parts always encode.
}

// statusClientClosedRequest is the status in the access log and the metrics of a request
// whose client did not wait for the response, as in nginx. No client sees it.
const statusClientClosedRequest = 499

func acceptsProblemJSON(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		kind, params, err := mime.ParseMediaType(part)
		if err != nil || kind != "application/problem+json" {
			continue
		}
		weight := 1.0
		if text, ok := params["q"]; ok {
			weight, _ = strconv.ParseFloat(text, 64) // An invalid weight counts as 0.
		}
		return weight > 0
	}
	return false
}

// Status returns the HTTP status of a kind of problem.
func Status(kind problem.Kind) int {
	switch kind {
	case problem.Invalid:
		return http.StatusBadRequest
	case problem.Unauthenticated:
		return http.StatusUnauthorized
	case problem.Forbidden:
		return http.StatusForbidden
	case problem.NotFound:
		return http.StatusNotFound
	case problem.MethodNotAllowed:
		return http.StatusMethodNotAllowed
	case problem.Conflict:
		return http.StatusConflict
	case problem.Gone:
		return http.StatusGone
	case problem.PreconditionFailed:
		return http.StatusPreconditionFailed
	case problem.RequestTimeout:
		return http.StatusRequestTimeout
	case problem.TooLarge:
		return http.StatusRequestEntityTooLarge
	case problem.UnsupportedMedia:
		return http.StatusUnsupportedMediaType
	case problem.TooManyRequests:
		return http.StatusTooManyRequests
	case problem.BadGateway:
		return http.StatusBadGateway
	case problem.Unavailable:
		return http.StatusServiceUnavailable
	case problem.Timeout:
		return http.StatusGatewayTimeout
	case problem.Internal:
	}
	return http.StatusInternalServerError
}
