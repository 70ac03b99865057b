package bus

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// LogOutages makes client log when Redis becomes unavailable, once a minute while it is,
// and when it is available again. The parts that use the client log such an error at the
// level debug, so an outage takes a few lines however many parts there are.
func LogOutages(client redis.UniversalClient, log *slog.Logger) { client.AddHook(&outageLog{log: log}) }

// outageLog is a hook of a client. It is safe for concurrent use.
type outageLog struct {
	log     *slog.Logger
	failing atomic.Bool

	mu     sync.Mutex
	since  time.Time // of the outage
	last   time.Time // failure
	logged time.Time
}

// recovery is how long no command may fail before an outage is over. After an outage,
// the client's pool returns the last error of a dial once more for a moment.
const recovery = time.Second

var _ redis.Hook = (*outageLog)(nil)

// DialHook implements redis.Hook.
func (o *outageLog) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (o *outageLog) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		o.observe(ctx, err)
		return err
	}
}

// ProcessPipelineHook implements redis.Hook.
func (o *outageLog) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		o.observe(ctx, err)
		return err
	}
}

func (o *outageLog) observe(ctx context.Context, err error) {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, redis.ErrClosed):
	case redisUnavailable(err):
		o.failed(ctx, err)
	case o.failing.Load():
		o.recovered(ctx)
	}
}

func (o *outageLog) failed(ctx context.Context, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	begins := !o.failing.Swap(true)
	if begins {
		o.since = now
	}
	o.last = now
	if !begins && now.Sub(o.logged) < time.Minute {
		return
	}
	o.logged = now
	if begins {
		o.log.WarnContext(ctx, "redis is unavailable; retrying", "error", err.Error())
		return
	}
	o.log.WarnContext(ctx, "redis is still unavailable; retrying", "unavailable_ms", now.Sub(o.since).Milliseconds(), "error", err.Error())
}

func (o *outageLog) recovered(ctx context.Context) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(o.last) >= recovery && o.failing.Swap(false) {
		o.log.InfoContext(ctx, "redis is available again", "unavailable_ms", o.last.Sub(o.since).Milliseconds())
	}
}

// redisUnavailable reports whether an error of a command says that Redis cannot be used
// at present. A reply shows that it can, unless it says otherwise.
func redisUnavailable(err error) bool {
	if err == nil {
		return false
	}
	for _, prefix := range []string{"LOADING", "MASTERDOWN", "CLUSTERDOWN"} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	_, replied := errors.AsType[redis.Error](err)
	return !replied
}

// retryLevel returns the level at which a part logs an error of Redis, see LogOutages.
func retryLevel(err error) slog.Level {
	if redisUnavailable(err) {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}
