package tests

import (
	"fmt"
	"maps"
	"strings"
	"syscall"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/tests/internal/redisserver"
)

// TestREL40RedisRestart is REL-40: a restart of the deployment's Redis loses nothing that
// the services wrote. Redis replays its append-only file as the user default, and checks
// the rights of that user for every transaction: those of the relays, and the effects of
// every script.
func TestREL40RedisRestart(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			server := startDeployedRedis(t, testPasswords())
			for round := range 2 { // the second on data that were loaded
				writeAsServices(t, server, round)
				before := server.contents(t.Context(), t)
				if want := 3 + 3*(round+1); len(before) != want {
					t.Errorf("before the restart there are %d keys, want %d:\n%s", len(before), want, lines(before))
				}
				server.awaitWritten(t)
				server.restart(t, signal)
				if after := server.contents(t.Context(), t); !maps.Equal(before, after) {
					t.Errorf("round %d: before the restart:\n%s\nafter it:\n%s", round, lines(before), lines(after))
				}
			}
		})
	}
}

// awaitWritten waits until Redis has written its append-only file. While an fsync takes long,
// Redis delays the writes after it, and a kill would lose them.
func (r *deployedRedis) awaitWritten(t *testing.T) {
	t.Helper()
	operator := r.as(redisserver.Operator)
	defer operator.Close()
	testkit.Eventually(t, func() error {
		info, err := operator.Info(t.Context(), "persistence").Result()
		if err != nil {
			return err
		}
		for _, idle := range []string{"aof_buffer_length:0\r\n", "aof_pending_bio_fsync:0\r\n"} {
			if !strings.Contains(info, idle) {
				return fmt.Errorf("want %q in %s", idle, info)
			}
		}
		return nil
	})
}

// writeAsServices writes as the services do: batches of events in transactions, progress
// of a consumer group with pending entries, and the effects of scripts.
func writeAsServices(t *testing.T, server *deployedRedis, round int) {
	t.Helper()
	ctx := t.Context()
	auth, audit, user, gateway := server.as("auth-service"), server.as("audit-service"), server.as("user-service"), server.as("gateway")
	for _, c := range []redis.UniversalClient{auth, audit, user, gateway} {
		defer c.Close()
	}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	topic := string(event.Audit)
	if round == 0 {
		ok(audit.XGroupCreateMkStream(ctx, topic, "audit-service", "0").Err())
	}
	var batch []*message.Message
	for i := range 10 {
		batch = append(batch, testkit.Message(t, testkit.NewEvent(ctx, fmt.Sprintf("subject-%d", i), event.SessionRevoked{SessionID: "s"})))
	}
	ok(bus.NewPublisher(auth).Publish(topic, batch...))
	ok(bus.NewPublisher(auth).Publish(string(event.User), batch[:3]...))
	ok(auth.Set(ctx, "watermark:published:{audit-events}:auth-service", fmt.Sprintf(`{"sequence":%d}`, 10*round), 0).Err())
	read, err := audit.XReadGroup(ctx, &redis.XReadGroupArgs{Group: "audit-service", Consumer: "a", Count: 8, Streams: []string{topic, ">"}}).Result()
	ok(err)
	for _, entry := range read[0].Messages[:5] {
		ok(audit.XAck(ctx, topic, "audit-service", entry.ID).Err())
	}

	for i := range 5 {
		ok(gateway.Eval(ctx, `
			redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', 0)
			redis.call('ZADD', KEYS[1], redis.call('TIME')[1], ARGV[1])
			redis.call('PEXPIRE', KEYS[1], 600000)
			return redis.call('ZCARD', KEYS[1])`,
			[]string{fmt.Sprintf("rl:{%d}:login:x", round)}, i).Err())
	}
	ok(user.Eval(ctx, `redis.call('SET', KEYS[1], ARGV[1], 'PX', 600000) return 1`, []string{fmt.Sprintf("user:profile:v1:%d", round)}, `{"version":1}`).Err())
	ok(user.Set(ctx, fmt.Sprintf("user:profile:v1:plain-%d", round), "x", 0).Err()) // no transaction
}

func lines(found map[string]string) string {
	var b strings.Builder
	for key, text := range found {
		fmt.Fprintf(&b, "  %s: %s\n", key, text)
	}
	return b.String()
}
