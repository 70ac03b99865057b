package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
)

const (
	group       = "bench"
	manyEntries = 50_000
	fewEntries  = 5_000 // for slow variants
	wideWindow  = 1024
)

// fill adds n messages of 256 bytes with three metadata keys to a new stream, with a
// consumer group at its beginning.
func (b *bench) fill(ctx context.Context, n int) (topic string, err error) {
	topic = b.stream()
	publisher := bus.NewPublisher(b.redis)
	payload := []byte(strings.Repeat("x", 256))
	for done := 0; done < n; {
		batch := make([]*message.Message, min(500, n-done))
		for i := range batch {
			batch[i] = message.NewMessageWithContext(ctx, uuid.NewString(), payload)
			batch[i].Metadata = message.Metadata{"name": "user.signed_up.v1", "correlation_id": "0123456789abcdef", "traceparent": "00-0123456789abcdef"}
		}
		if err := publisher.Publish(topic, batch...); err != nil {
			return "", err
		}
		done += len(batch)
	}
	if err := b.redis.XGroupCreate(ctx, topic, group, "0").Err(); err != nil {
		return "", fmt.Errorf("make group: %w", err)
	}
	return topic, nil
}

// awaitAcks waits until n messages are handled and none is pending.
func (b *bench) awaitAcks(ctx context.Context, topic string, handled *atomic.Int64, n int) error {
	for {
		if handled.Load() >= int64(n) {
			p, err := b.redis.XPending(ctx, topic, group).Result()
			if err != nil {
				return fmt.Errorf("read pending entries: %w", err)
			}
			if p.Count == 0 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func (b *bench) consume(ctx context.Context) error {
	medians, err := b.alternate(ctx,
		variant{"raw", b.consumeRaw},
		variant{"stock", b.consumeStock},
		variant{"ours", func(ctx context.Context) (float64, error) { return b.consumeOurs(ctx, wideWindow, nil) }},
		variant{"router", func(ctx context.Context) (float64, error) {
			return b.consumeRouter(ctx, wideWindow, manyEntries, 0, nil)
		}},
	)
	if err != nil {
		return err
	}
	b.report.figure("consume", "go-redis XREADGROUP COUNT 100, XACK of 100", perSecond(medians["raw"]))
	b.report.figure("consume", "watermill-redisstream, one subscription", perSecond(medians["stock"]))
	b.report.atLeast("consume", "bus.Subscriber / stock", perSecond(medians["ours"]), medians["ours"]/medians["stock"], 10)
	b.report.atLeast("consume", "bus.Subscriber / raw", perSecond(medians["ours"]), medians["ours"]/medians["raw"], 0.7)
	b.report.compared("consume", "bus.Subscriber in a Router / stock without one", perSecond(medians["router"]), medians["router"]/medians["stock"])
	return nil
}

func (b *bench) consumeRaw(ctx context.Context) (float64, error) {
	topic, err := b.fill(ctx, manyEntries)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	for done := 0; done < manyEntries; {
		streams, err := b.redis.XReadGroup(ctx, &redis.XReadGroupArgs{Group: group, Consumer: "c", Streams: []string{topic, ">"}, Count: 100}).Result()
		if err != nil {
			return 0, fmt.Errorf("read: %w", err)
		}
		ids := make([]string, len(streams[0].Messages))
		for i, m := range streams[0].Messages {
			ids[i] = m.ID
		}
		if err := b.redis.XAck(ctx, topic, group, ids...).Err(); err != nil {
			return 0, fmt.Errorf("acknowledge: %w", err)
		}
		done += len(ids)
	}
	return manyEntries / time.Since(start).Seconds(), b.redis.Del(ctx, topic).Err()
}

func (b *bench) consumeStock(ctx context.Context) (float64, error) {
	topic, err := b.fill(ctx, fewEntries)
	if err != nil {
		return 0, err
	}
	client, err := b.client() // Close closes it.
	if err != nil {
		return 0, err
	}
	subscriber, err := redisstream.NewSubscriber(redisstream.SubscriberConfig{Client: client, ConsumerGroup: group}, watermill.NopLogger{})
	if err != nil {
		return 0, fmt.Errorf("make subscriber: %w", err)
	}
	rate, err := b.drain(ctx, subscriber, topic, fewEntries, nil)
	return rate, errors.Join(err, subscriber.Close(), b.redis.Del(ctx, topic).Err())
}

// consumeOurs calls watch from time to time, unless it is nil.
func (b *bench) consumeOurs(ctx context.Context, window int, watch func(handled int64)) (float64, error) {
	topic, err := b.fill(ctx, manyEntries)
	if err != nil {
		return 0, err
	}
	subscriber := bus.NewSubscriber(bus.SubscriberConfig{Client: b.redis, Group: group, Consumer: "c", Window: window, Log: b.log})
	rate, err := b.drain(ctx, subscriber, topic, manyEntries, watch)
	return rate, errors.Join(err, subscriber.Close(), b.redis.Del(ctx, topic).Err())
}

func (b *bench) drain(ctx context.Context, subscriber message.Subscriber, topic string, n int, watch func(int64)) (float64, error) {
	start := time.Now()
	messages, err := subscriber.Subscribe(ctx, topic)
	if err != nil {
		return 0, fmt.Errorf("subscribe: %w", err)
	}
	var handled atomic.Int64
	for m := range messages {
		m.Ack()
		done := handled.Add(1)
		if watch != nil && done%1000 == 0 {
			watch(done)
		}
		if done == int64(n) {
			break
		}
	}
	go func() {
		for m := range messages {
			m.Nack() // No more messages are expected; Close must not wait for one.
		}
	}()
	if err := b.awaitAcks(ctx, topic, &handled, n); err != nil {
		return 0, err
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

// consumeRouter measures a handler that takes pause, in Watermill's router.
func (b *bench) consumeRouter(ctx context.Context, window, n int, pause time.Duration, spent *atomic.Int64) (float64, error) {
	topic, err := b.fill(ctx, n)
	if err != nil {
		return 0, err
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		return 0, fmt.Errorf("make router: %w", err)
	}
	var handled atomic.Int64
	subscriber := bus.NewSubscriber(bus.SubscriberConfig{Client: b.redis, Group: group, Consumer: "c", Window: window, Log: b.log})
	router.AddConsumerHandler("bench", topic, subscriber, func(*message.Message) error {
		if pause > 0 {
			start := time.Now()
			<-time.After(pause)
			spent.Add(int64(time.Since(start)))
		}
		handled.Add(1)
		return nil
	})
	ended := make(chan error, 1)
	start := time.Now()
	go func() { ended <- router.Run(ctx) }()
	err = b.awaitAcks(ctx, topic, &handled, n)
	took := time.Since(start)
	return float64(n) / took.Seconds(), errors.Join(err, router.Close(), <-ended, b.redis.Del(ctx, topic).Err())
}

// slowHandler measures handlers that wait: the rate depends on how many wait at a time,
// until the CPU cannot start more of them.
func (b *bench) slowHandler(ctx context.Context) error {
	const pause = 5 * time.Millisecond
	const endless = 4096
	spent, count := map[int]*atomic.Int64{}, map[int]int{64: 10_000, 256: 20_000, endless: manyEntries}
	var variants []variant
	for window, n := range count {
		spent[window] = &atomic.Int64{}
		variants = append(variants, variant{strconv.Itoa(window), func(ctx context.Context) (float64, error) {
			return b.consumeRouter(ctx, window, n, pause, spent[window])
		}})
	}
	medians, err := b.alternate(ctx, variants...)
	if err != nil {
		return err
	}
	limit := medians[strconv.Itoa(endless)]
	b.report.figure("slow-handler", fmt.Sprintf("5 ms, window %d: the CPU limit", endless), perSecond(limit))
	for _, window := range []int{64, 256} {
		figure := medians[strconv.Itoa(window)]
		nominal := float64(window) / pause.Seconds()
		b.report.atLeast("slow-handler", fmt.Sprintf("5 ms, window %d / min(%[1]d per 5 ms, limit)", window), perSecond(figure), figure/min(nominal, limit), 0.8)
		// A timer of 5 ms takes longer on a busy machine, which the subscriber cannot change.
		took := time.Duration(spent[window].Load() / int64(b.rounds*count[window]))
		possible := float64(window) / took.Seconds()
		b.report.compared("slow-handler", fmt.Sprintf("the same / min(%d per %s that it really took, limit)", window, took.Round(10*time.Microsecond)), "",
			figure/min(possible, limit))
		// Handlers that take the same time finish together. Then the CPU has to replace a
		// whole window of them before they wait again.
		together := float64(window) / (took.Seconds() + float64(window)/limit)
		b.report.compared("slow-handler", fmt.Sprintf("the same / %d per (%s and the CPU's time for %[1]d)", window, took.Round(10*time.Microsecond)), "",
			figure/together)
	}
	return nil
}
