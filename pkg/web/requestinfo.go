package web

import (
	"context"
	"log/slog"
	"time"
)

// requestInfo is what the access log learns while a request is handled. One goroutine
// handles a request, so it needs no lock.
type requestInfo struct {
	route       string
	userID      string
	code        string
	development bool
	unavailable func(error) bool
	started     time.Time
	upstream    time.Duration // how long another service was waited for; negative if none was
	log         *slog.Logger
}

type requestInfoKey struct{}

func requestInfoFrom(ctx context.Context) *requestInfo {
	if i, ok := ctx.Value(requestInfoKey{}).(*requestInfo); ok {
		return i
	}
	return &requestInfo{log: slog.Default()}
}

// SetRoute names the route of a request for the access log and the metrics.
// Router does it by itself.
func SetRoute(ctx context.Context, route string) { requestInfoFrom(ctx).route = route }

// RouteOf returns the route of a request, as the access log names it.
func RouteOf(ctx context.Context) string { return requestInfoFrom(ctx).route }

// UserOf returns who SetUser named, or nothing.
func UserOf(ctx context.Context) string { return requestInfoFrom(ctx).userID }

// SetUpstream tells the access log how long the caller waited for another service.
func SetUpstream(ctx context.Context, waited time.Duration) { requestInfoFrom(ctx).upstream = waited }

// Log returns the log of the listener that the request of ctx came to.
func Log(ctx context.Context) *slog.Logger { return requestInfoFrom(ctx).log }

// SetUser names the caller for the access log.
func SetUser(ctx context.Context, id string) { requestInfoFrom(ctx).userID = id }
