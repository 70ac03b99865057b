package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
)

// latency measures the time from a commit to the handler on an idle system: outbox, relay,
// stream, consumer.
func (b *bench) latency(ctx context.Context) error {
	const events = 500
	db, _, err := b.database(ctx, "bench_latency", outbox.Schema(), deadletter.Schema())
	if err != nil {
		return err
	}
	defer db.Close()
	handled := make(chan time.Time, 1)
	relay := outbox.NewRelay(db, bus.NewPublisher(b.redis), b.epochs(db), b.log, prometheus.NewRegistry())
	consumer := bus.NewConsumer(bus.ConsumerConfig{
		Topic:      event.Audit,
		Subscriber: bus.NewSubscriber(bus.SubscriberConfig{Client: b.redis, Group: group, Consumer: "c", Log: b.log}),
		Rest: func(context.Context, event.Event) error {
			handled <- time.Now()
			return nil
		},
		DeadLetters: deadletter.New(db, outbox.New("bench"), time.Now), Log: b.log, Metrics: prometheus.NewRegistry(),
	})
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 2)
	go func() { ended <- relay.Run(running) }()
	go func() { ended <- consumer.Run(running) }()

	box, times := outbox.New("bench"), make([]time.Duration, 0, events)
	for i := range events + 20 {
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			return box.Add(ctx, tx, event.New(ctx, time.Now(), uuid.NewString(), event.UserLoggedIn{}))
		})
		if err != nil {
			return fmt.Errorf("commit an event: %w", err)
		}
		committed := time.Now()
		select {
		case at := <-handled:
			if i >= 20 { // The first events are not measured.
				times = append(times, at.Sub(committed))
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		time.Sleep(20 * time.Millisecond) // The system must be idle between two events.
	}
	stop()
	err = errors.Join(<-ended, <-ended)
	slices.Sort(times)
	b.report.within("latency", "commit to handled, idle, p50", times[len(times)/2], 5*time.Millisecond)
	b.report.within("latency", "commit to handled, idle, p99", times[len(times)*99/100], 25*time.Millisecond)
	return err
}

// memory measures the heap of a consumer with a long backlog, which must not grow with it.
func (b *bench) memory(ctx context.Context) error {
	const n = 1_000_000
	topic, err := b.fill(ctx, n)
	if err != nil {
		return err
	}
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	first, most := stats.HeapInuse, stats.HeapInuse
	subscriber := bus.NewSubscriber(bus.SubscriberConfig{Client: b.redis, Group: group, Consumer: "c", Window: wideWindow, Log: b.log})
	_, err = b.drain(ctx, subscriber, topic, n, func(handled int64) {
		if handled%(n/20) == 0 {
			runtime.ReadMemStats(&stats)
			most = max(most, stats.HeapInuse)
		}
	})
	b.report.figure("memory", fmt.Sprintf("consumer, backlog of %d: heap before, most", n),
		fmt.Sprintf("%.1f, %.1f MiB", float64(first)/(1<<20), float64(most)/(1<<20)))
	return errors.Join(err, subscriber.Close())
}
