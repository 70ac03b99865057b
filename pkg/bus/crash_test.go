package bus_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
)

// readAs reads as a consumer that acknowledges nothing, as if it crashed.
func (f *fixture) readAs(consumer, from string) int {
	f.t.Helper()
	streams, err := f.client.XReadGroup(f.t.Context(), &redis.XReadGroupArgs{
		Group: "test", Consumer: consumer, Streams: []string{string(event.Audit), from}, Block: -1,
	}).Result()
	if err != nil {
		f.t.Fatal(err)
	}
	return len(streams[0].Messages)
}

// TestCrashLoop: an entry that was delivered too often without an acknowledgement
// becomes a dead letter; an entry that was delivered beside it a few times is handled.
func TestCrashLoop(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	killer := newMessage(t, event.UserLoggedIn{})
	f.publish(killer)
	if err := f.client.XGroupCreate(t.Context(), string(event.Audit), "test", "0").Err(); err != nil {
		t.Fatal(err)
	}
	f.readAs("dead", ">")
	for range 6 {
		f.readAs("dead", "0")
	}
	innocent := newMessage(t, event.UserLoggedIn{})
	f.publish(innocent)
	f.readAs("dead", ">")
	f.readAs("dead", "0") // the killer for the eighth time
	f.consume("b", nil)
	f.wantSeen(innocent)
	deadLetter := f.wantDeadLetters(1)[0]
	if *deadLetter.EventID != killer.UUID || deadLetter.Class != "permanent" || !strings.Contains(deadLetter.Reason, "9 times") {
		t.Errorf("dead letter = %+v", deadLetter)
	}
	if f.seen[killer.UUID] != 0 {
		t.Error("the killer was handled once more")
	}
	f.wantNothingPending()
}

// TestQuarantine: after some deliveries without an acknowledgement, entries are
// handled one at a time, so that one of them cannot take the others with it.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	var messages []*message.Message
	for range 10 {
		messages = append(messages, newMessage(t, event.UserLoggedIn{}))
	}
	f.publish(messages...)
	if err := f.client.XGroupCreate(t.Context(), string(event.Audit), "test", "0").Err(); err != nil {
		t.Fatal(err)
	}
	f.readAs("dead", ">")
	for range 3 {
		f.readAs("dead", "0")
	}
	busy := make(chan struct{}, 1)
	f.consume("b", func(ctx context.Context, e event.Event) error {
		select {
		case busy <- struct{}{}:
		default:
			t.Error("two entries in quarantine at a time")
		}
		defer func() { <-busy }()
		return f.count(ctx, e)
	})
	f.wantSeen(messages...)
	f.wantNothingPending()
}

// TestRemoveIdleConsumers: only idle consumers without pending entries are removed.
func TestRemoveIdleConsumers(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	topic := string(event.Audit)
	if err := f.client.XGroupCreateMkStream(t.Context(), topic, "test", "0").Err(); err != nil {
		t.Fatal(err)
	}
	f.publish(newMessage(t, event.UserLoggedIn{}))
	f.readAs("busy", ">")
	if err := f.client.XGroupCreateConsumer(t.Context(), topic, "test", "idle").Err(); err != nil {
		t.Fatal(err)
	}
	f.consume("live", nil, func(cfg *bus.SubscriberConfig) {
		cfg.ConsumerTTL, cfg.MaintenanceInterval, cfg.MaxIdle = 1500*time.Millisecond, 100*time.Millisecond, time.Minute
	})
	names := func() string {
		consumers, err := f.client.XInfoConsumers(t.Context(), topic, "test").Result()
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, c := range consumers {
			all = append(all, c.Name)
		}
		return strings.Join(all, " ")
	}
	testkit.Eventually(t, func() error {
		if got := names(); got != "busy live" {
			return fmt.Errorf("consumers are %s", got)
		}
		return nil
	})
}

// TestTrim: only entries that every group has acknowledged are trimmed, and Redis
// still knows the lag.
func TestTrim(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	topic := string(event.Audit)
	if err := f.client.XGroupCreateMkStream(t.Context(), topic, "slow", "0").Err(); err != nil {
		t.Fatal(err)
	}
	trimming := func(cfg *bus.SubscriberConfig) {
		cfg.Retain, cfg.MaintenanceInterval, cfg.Groups = time.Millisecond, 50*time.Millisecond, []string{"slow"}
	}
	f.consume("a", nil, trimming)
	var messages []*message.Message
	for range 500 {
		messages = append(messages, newMessage(t, event.UserLoggedIn{}))
	}
	f.publish(messages...)
	f.wantSeen(messages...)
	read, err := f.client.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: "slow", Consumer: "s", Count: 400, Streams: []string{topic, ">"}}).Result()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, entry := range read[0].Messages[:350] {
		ids = append(ids, entry.ID)
	}
	if err := f.client.XAck(t.Context(), topic, "slow", ids...).Err(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() error {
		// Redis trims whole nodes of 100 entries, so it may leave some.
		if n := f.client.XLen(t.Context(), topic).Val(); n > 250 || n < 150 {
			return fmt.Errorf("%d entries are left of 500, of which 350 are acknowledged", n)
		}
		return nil
	})
	groups, err := f.client.XInfoGroups(t.Context(), topic).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		if want := map[string]int64{"slow": 100, "test": 0}[g.Name]; g.Lag != want {
			t.Errorf("lag of %s = %d, want %d", g.Name, g.Lag, want)
		}
	}
	if n, err := f.client.XPending(t.Context(), topic, "slow").Result(); err != nil || n.Count != 50 {
		t.Errorf("pending of slow = %+v, %v", n, err)
	}
}

// TestTrimWaitsForEveryGroup: nothing is trimmed before every configured group
// exists.
func TestTrimWaitsForEveryGroup(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	var messages []*message.Message
	for range 300 {
		messages = append(messages, newMessage(t, event.UserLoggedIn{}))
	}
	f.publish(messages...)
	f.consume("a", nil, func(cfg *bus.SubscriberConfig) {
		cfg.Retain, cfg.MaintenanceInterval, cfg.Groups = time.Millisecond, 20*time.Millisecond, []string{"to-come"}
	})
	f.wantSeen(messages...)
	f.wantNothingPending()
	rounds := time.NewTimer(300 * time.Millisecond)
	<-rounds.C
	if n := f.client.XLen(t.Context(), string(event.Audit)).Val(); n != 300 {
		t.Errorf("%d entries are left of 300", n)
	}
}

// TestDeletedWhilePending: a pending entry that was deleted from the stream is
// acknowledged, blocks no other entry and does not become a dead letter.
func TestDeletedWhilePending(t *testing.T) {
	t.Parallel()
	for name, reader := range map[string]string{"its own": "a", "another's": "dead"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, testkit.Redis(t))
			f.publish(newMessage(t, event.UserLoggedIn{}))
			topic := string(event.Audit)
			if err := f.client.XGroupCreate(t.Context(), topic, "test", "0").Err(); err != nil {
				t.Fatal(err)
			}
			f.readAs(reader, ">")
			if err := f.client.XTrimMaxLen(t.Context(), topic, 0).Err(); err != nil {
				t.Fatal(err)
			}
			m := newMessage(t, event.UserLoggedIn{})
			f.publish(m)
			f.consume("a", nil)
			f.wantSeen(m)
			f.wantNothingPending()
			f.wantDeadLetters(0)
		})
	}
}

// TestUnknownVersion is REL-29: an event of an unknown version becomes a dead letter
// and is not dropped.
func TestUnknownVersion(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	m := newMessage(t, event.UserLoggedIn{})
	m.Payload = []byte(strings.Replace(string(m.Payload), "user.logged_in.v1", "user.logged_in.v2", 1))
	f.publish(m)
	f.consume("a", nil)
	deadLetter := f.wantDeadLetters(1)[0]
	if *deadLetter.Type != "user.logged_in.v2" || deadLetter.Class != "permanent" || !strings.Contains(deadLetter.Reason, "unknown version") {
		t.Errorf("dead letter = %+v", deadLetter)
	}
}
