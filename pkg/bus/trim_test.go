package bus_test

import (
	"errors"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
)

// publishAged publishes n events with the ids of entries that were added before.
func (f *fixture) publishAged(n int, before time.Duration) {
	f.t.Helper()
	at := time.Now().Add(-before).UnixMilli()
	for i := range n {
		m := newMessage(f.t, event.UserLoggedIn{})
		values, err := redisstream.DefaultMarshallerUnmarshaller{}.Marshal(string(event.Audit), m)
		if err != nil {
			f.t.Fatal(err)
		}
		id := strconv.FormatInt(at, 10) + "-" + strconv.Itoa(i+1)
		if err := f.client.XAdd(f.t.Context(), &redis.XAddArgs{Stream: string(event.Audit), ID: id, Values: values}).Err(); err != nil {
			f.t.Fatal(err)
		}
	}
}

// wantLength waits until the stream has from least to most entries.
func (f *fixture) wantLength(least, most int64) {
	f.t.Helper()
	testkit.Eventually(f.t, func() error {
		if n := f.client.XLen(f.t.Context(), string(event.Audit)).Val(); n < least || n > most {
			return fmt.Errorf("%d entries in the stream, want %d to %d", n, least, most)
		}
		return nil
	})
}

// TestAbandonedGroup is REL-63: a consumer group that belongs to no service, and that
// nobody reads with any more, does not keep entries from being trimmed.
func TestAbandonedGroup(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	if err := f.client.XGroupCreateMkStream(t.Context(), string(event.Audit), "abandoned", "0").Err(); err != nil {
		t.Fatal(err)
	}
	f.publishAged(500, time.Minute)
	f.consume("a", nil, func(cfg *bus.SubscriberConfig) {
		cfg.Retain, cfg.MaintenanceInterval = time.Second, 50*time.Millisecond
	})
	f.wantLength(0, 100) // Redis trims whole nodes of 100 entries.
	if n := total(t, f.metrics, "headgate_stream_trimmed_by_others_total"); n != 0 {
		t.Errorf("%v trims by others, want none", n)
	}
}

// TestSEC119TrimByAProducer is SEC-119: Redis cannot keep a producer from trimming the stream
// to which it adds entries, but the consumer notices it.
func TestSEC119TrimByAProducer(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	f.consume("a", nil, func(cfg *bus.SubscriberConfig) { cfg.MaintenanceInterval = 50 * time.Millisecond })
	testkit.Eventually(t, func() error {
		m := newMessage(t, event.UserLoggedIn{})
		f.publish(m)
		f.wantSeen(m)
		if err := f.client.XAdd(t.Context(), &redis.XAddArgs{Stream: string(event.Audit), MaxLen: 1, Values: []string{"a", "b"}}).Err(); err != nil {
			return err
		}
		if n := total(t, f.metrics, "headgate_stream_trimmed_by_others_total"); n == 0 {
			return errors.New("no trim was noticed")
		}
		return nil
	})
}

// TestSEC119TrimOfUnreadEntries is SEC-119: on a stream that was idle, a trim is noticed as
// well, although no entry is gone that the last maintenance saw, and although the stream ends
// with an entry that was added after the trim.
func TestSEC119TrimOfUnreadEntries(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	f.publishAged(500, 2*time.Minute)
	f.consume("a", nil, func(cfg *bus.SubscriberConfig) {
		cfg.Retain, cfg.MaintenanceInterval = 30*time.Second, 50*time.Millisecond
	})
	f.wantLength(0, 100) // There was a maintenance.
	_, err := f.client.TxPipelined(t.Context(), func(tx redis.Pipeliner) error {
		for _, maxLen := range []any{"100000", "0", "100000"} {
			tx.Do(t.Context(), "XADD", string(event.Audit), "MAXLEN", maxLen, "*", "a", "b")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() error {
		if n := total(t, f.metrics, "headgate_stream_trimmed_by_others_total"); n != 1 {
			return fmt.Errorf("%v trims were noticed, want 1", n)
		}
		return nil
	})
}

// total returns the sum of a counter.
func total(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// TestTrimClock is REL-80: the age of entries is measured by the clock of Redis, which made
// their ids. The clock of the service may be wrong: here it shows the year 2000.
func TestTrimClock(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	topic, address := string(event.Audit), testkit.RedisURL(t)
	f.client = testkit.OpenRedis(t, address, time.Second)
	f.publishAged(500, time.Hour)
	if err := f.client.XGroupCreate(t.Context(), topic, "test", "$").Err(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := bus.NewSubscriber(bus.SubscriberConfig{
			Client: testkit.OpenRedis(t, address, time.Second), Group: "test", Consumer: "a", Retain: time.Minute, Log: testkit.Log(t),
		})
		if err := s.Trim(t.Context(), topic); err != nil {
			t.Error(err)
		}
	})
	f.wantLength(0, 100) // Redis trims whole nodes of 100 entries.
}

// TestStreamOverLimit: a stream that is larger than MaxBytes loses the entries that
// every group has acknowledged, before they are as old as Retain, and no others.
func TestStreamOverLimit(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	topic := string(event.Audit)
	if err := f.client.XGroupCreateMkStream(t.Context(), topic, "slow", "0").Err(); err != nil {
		t.Fatal(err)
	}
	f.publishAged(500, 2*time.Minute)
	f.consume("a", nil, func(cfg *bus.SubscriberConfig) {
		cfg.Retain, cfg.MaxBytes, cfg.Groups, cfg.MaintenanceInterval = time.Hour, 10<<10, []string{"slow"}, 50*time.Millisecond
	})
	testkit.Eventually(t, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.seen) < 500 {
			return fmt.Errorf("%d of 500 entries were handled", len(f.seen))
		}
		return nil
	})
	f.wantNothingPending()
	rounds := time.NewTimer(300 * time.Millisecond)
	<-rounds.C
	f.wantLength(500, 500) // The other group has acknowledged nothing.
	read, err := f.client.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: "slow", Consumer: "s", Count: 300, Streams: []string{topic, ">"}, NoAck: true}).Result()
	if err != nil || len(read[0].Messages) != 300 {
		t.Fatalf("XREADGROUP = %v, %v", read, err)
	}
	f.wantLength(200, 300)
}
