package web

import (
	"context"
	"log/slog"
	"time"
)

// requestInfo collects what the access log says about a request. One goroutine handles a
// request, so it needs no lock.
type requestInfo struct {
	route       string
	userID      string
	code        string
	development bool
	unavailable func(error) bool
	started     time.Time
	streaming   time.Duration // from the start until the response became a stream; 0 if it is none
	onStream    func()        // see SetStreaming
	upstream    time.Duration // time spent waiting for another service; negative if there was none
	log         *slog.Logger
}

type requestInfoKey struct{}

func requestInfoFrom(ctx context.Context) *requestInfo {
	if i, ok := ctx.Value(requestInfoKey{}).(*requestInfo); ok {
		return i
	}
	return &requestInfo{log: slog.Default()}
}

// SetRoute sets the route of a request in the access log and the metrics. NewRouter's
// handler does so itself.
func SetRoute(ctx context.Context, route string) { requestInfoFrom(ctx).route = route }

// RouteOf returns the route that SetRoute has set.
func RouteOf(ctx context.Context) string { return requestInfoFrom(ctx).route }

// UserOf returns the id that SetUser has set, or an empty string.
func UserOf(ctx context.Context) string { return requestInfoFrom(ctx).userID }

// SetUpstream sets how long the request waited for another service, for the access log.
func SetUpstream(ctx context.Context, waited time.Duration) { requestInfoFrom(ctx).upstream = waited }

// Log returns the log of the listener that received the request of ctx.
func Log(ctx context.Context) *slog.Logger { return requestInfoFrom(ctx).log }

// SetStreaming says that the response is a stream from now on, which lasts as long as its
// client wants. In the metrics, the request ends here: hours would hide how long requests
// take, and a stream is no request in flight. The access log has its whole duration.
func SetStreaming(ctx context.Context) {
	info := requestInfoFrom(ctx)
	if info.streaming > 0 || info.onStream == nil {
		return
	}
	info.streaming = max(1, time.Since(info.started))
	info.onStream()
}

// SetUser sets the caller's id in the access log.
func SetUser(ctx context.Context, id string) { requestInfoFrom(ctx).userID = id }
