package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	return fmt.Sprintf("unavailable, or a part of it, for %s: requests are served without it, events wait and are published when it is back", lasts.Round(time.Second))
}

// outageHook is a hook of a client. It is safe for concurrent use.
type outageHook struct{ outage *service.Outage }

// recovery is how long no command may fail before an outage is over: longer than the
// longest pause between two attempts. While one server of a Cluster is away, the commands to
// the others succeed in between.
const recovery = 15 * time.Second

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

// ErrUnavailable says that Redis, or the server of a Cluster that has the key, cannot be
// used at present. The errors of clients that Redis.Open returned wrap it, so they can be
// told from errors of other dependencies.
var ErrUnavailable = errors.New("redis is unavailable")

// unavailableHook is a hook of a client that wraps ErrUnavailable in errors. It is safe for
// concurrent use.
type unavailableHook struct{}

var _ redis.Hook = unavailableHook{}

// DialHook implements redis.Hook.
func (unavailableHook) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (unavailableHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { return markUnavailable(next(ctx, cmd)) }
}

// ProcessPipelineHook implements redis.Hook.
func (unavailableHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if err == nil {
			return nil
		}
		for _, cmd := range cmds {
			cmd.SetErr(markUnavailable(cmd.Err()))
		}
		return markUnavailable(err)
	}
}

// markUnavailable wraps ErrUnavailable in an error of a command that says so.
func markUnavailable(err error) error {
	if !redisUnavailable(err) || errors.Is(err, context.Canceled) || errors.Is(err, redis.ErrClosed) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// redisUnavailable reports whether an error of a client of Redis says that Redis cannot be
// used at present. A reply shows that it can, unless it says otherwise.
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
