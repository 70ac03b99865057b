package web

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"

	"github.com/gorilla/mux"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
)

// Privileged reports whether a route shows data of others to callers with a role that an
// ordinary user does not have.
func (route Route) Privileged() bool {
	return route.Method == http.MethodGet && !route.Access.public && !token.Identity{Role: token.RoleUser}.Is(route.Access.roles...)
}

// serveRead calls the handler of a route. A privileged read is recorded before the first
// byte of its response is sent, unless the handler records it itself or the caller reads
// their own data. If it cannot be recorded, the response is 503, and shows nothing.
func serveRead(w http.ResponseWriter, r *http.Request, route Route, o Options) error {
	if o.Read == nil || route.Recorded || !route.Privileged() || route.Access.self && isSelf(r) {
		return route.Handler(w, r)
	}
	id := mux.Vars(r)["id"]
	subject := ""
	if route.Access.self {
		subject = id
	}
	before := w.Header().Clone()
	recorder := &readRecorder{
		ResponseWriter: w, request: r, record: o.Read, subject: subject, read: event.AuditRead{Route: route.Path, ObjectID: id},
	}
	err := route.Handler(recorder, r)
	if recorder.failed == nil {
		return err
	}
	clear(w.Header())
	maps.Copy(w.Header(), before)
	return fmt.Errorf("record read: %w: %w", recorder.failed, problem.ErrUnavailable)
}

// isSelf reports whether the caller is the user whose id is in the path.
func isSelf(r *http.Request) bool {
	caller, ok := token.From(r.Context())
	return ok && caller.UserID != "" && strings.EqualFold(mux.Vars(r)["id"], caller.UserID)
}

// readRecorder records a read before it passes on the response. It drops the response if
// that fails.
type readRecorder struct {
	http.ResponseWriter

	request *http.Request
	record  func(ctx context.Context, subject string, read event.Payload) error
	subject string
	read    event.AuditRead
	begun   bool
	failed  error
}

// Unwrap is for http.ResponseController.
func (w *readRecorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *readRecorder) WriteHeader(status int) {
	if !w.begun && status >= http.StatusOK {
		w.begun = true
		if status < http.StatusBadRequest {
			w.failed = w.record(w.request.Context(), w.subject, w.read)
		}
	}
	if w.failed == nil {
		w.ResponseWriter.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (w *readRecorder) Write(data []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	if w.failed != nil {
		return 0, w.failed
	}
	return w.ResponseWriter.Write(data)
}

// noteFound tells a readRecorder how many items a list shows.
func noteFound(w http.ResponseWriter, n int) {
	if recorder, ok := w.(*readRecorder); ok {
		recorder.read.Found = n
	}
}
