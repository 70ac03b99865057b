package web

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
)

var errNotReady = problem.New(problem.Unavailable, "not_ready", "This instance is not ready. Try again later.").WithRetryAfter(time.Second)

const readyTimeout = 2 * time.Second

// WithHealth adds /livez and /readyz to next, outside the access log, which probes would
// flood. /livez checks no dependency, so an orchestrator never kills healthy processes
// because a dependency is down. /readyz returns 503 while ready fails, without the reason,
// because it is public. If ready is nil, it always succeeds.
func WithHealth(next http.Handler, ready func(context.Context) error) http.Handler {
	always := func(context.Context) error { return nil }
	if ready == nil {
		ready = always
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/livez":
			probe(w, r, "alive", always)
		case "/readyz":
			probe(w, r, "ready", ready)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func probe(w http.ResponseWriter, r *http.Request, status string, check func(context.Context) error) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	id := requestID(r, uuid.Must(uuid.NewV7()))
	r = r.WithContext(event.WithOrigin(ctx, event.Origin{RequestID: id}))
	setSecurityHeaders(w.Header())
	w.Header().Set(requestIDHeader, id)
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		writeError(w, r, problem.ErrMethod, problem.ErrMethod)
	case check(ctx) != nil:
		writeError(w, r, errNotReady, errNotReady)
	default:
		_ = OK(w, http.StatusOK, map[string]string{"status": status}) // It always encodes.
	}
}
