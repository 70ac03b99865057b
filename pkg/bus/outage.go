package bus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/service"
)

// LogOutages makes client log when Redis becomes unavailable, once a minute while it is,
// and when it is available again. It returns the outage. The parts that use the client
// log such an error at the level debug, so an outage takes a few lines however many parts
// there are.
func LogOutages(client redis.UniversalClient, log *slog.Logger) *service.Outage {
	outage := service.NewOutage(service.OutageConfig{
		Log: log, Failing: "redis is unavailable; retrying", Over: "redis is available again", Quiet: recovery,
	})
	client.AddHook(&outageHook{outage})
	return outage
}

// OutageNotice returns the notice for /readyz about an outage of Redis, "" if there is none.
func OutageNotice(outage *service.Outage) string {
	lasts := outage.Lasts()
	if lasts == 0 {
		return ""
	}
	return fmt.Sprintf("unavailable for %s: requests are served without it, events wait and are published when it is back", lasts.Round(time.Second))
}

// outageHook is a hook of a client. It is safe for concurrent use.
type outageHook struct{ outage *service.Outage }

// recovery is how long no command may fail before an outage is over. After an outage,
// the client's pool returns the last error of a dial once more for a moment.
const recovery = time.Second

var _ redis.Hook = (*outageHook)(nil)

// DialHook implements redis.Hook.
func (o *outageHook) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (o *outageHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		o.observe(ctx, err)
		return err
	}
}

// ProcessPipelineHook implements redis.Hook.
func (o *outageHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		o.observe(ctx, err)
		return err
	}
}

func (o *outageHook) observe(ctx context.Context, err error) {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, redis.ErrClosed):
	case redisUnavailable(err):
		o.outage.Record(ctx, "", err)
	default:
		o.outage.Record(ctx, "", nil)
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

// Unreachable reports whether err says that Redis cannot be reached, which LogOutages
// logs. Unlike redisUnavailable it also tells that from errors that are not of a client.
func Unreachable(err error) bool {
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return true
	}
	return redis.HasErrorPrefix(err, "LOADING") || errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, io.EOF)
}

// retryLevel returns the level at which a part logs an error of Redis, see LogOutages.
func retryLevel(err error) slog.Level {
	if redisUnavailable(err) {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}
