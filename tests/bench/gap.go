package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/reconcile"
)

// missing is how many published events the consumer of the benchmark lacks.
const missing = 1_000_000

// gap compares the healing of a large gap, from outbox rows to the consumer's records,
// with the relay.
func (b *bench) gap(ctx context.Context) error {
	producer, _, err := b.database(ctx, "bench_gap_producer", outbox.Schema())
	if err != nil {
		return err
	}
	defer producer.Close()
	consumer, _, err := b.database(ctx, "bench_gap_consumer", outbox.Schema(), deadletter.Schema(), reconcile.WatermarksSchema(), reconcile.RecordsSchema())
	if err != nil {
		return err
	}
	defer consumer.Close()
	relay, err := b.relayRound(ctx, producer, b.relayOurs)
	if err != nil {
		return err
	}
	if err := fillGap(ctx, producer); err != nil {
		return err
	}
	before, err := outboxSize(ctx, producer)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := b.heal(ctx, producer, consumer); err != nil {
		return err
	}
	healed := missing / time.Since(start).Seconds()
	after, err := outboxSize(ctx, producer)
	if err != nil {
		return err
	}
	b.report.figure("gap", "outbox.Relay", perSecond(relay))
	b.report.atLeast("gap", "10^6 missing events, until the last is recorded / that", perSecond(healed), healed/relay, 0.5)
	b.report.atMost("gap", "size of the outbox after / before", fmt.Sprintf("%d MiB", after>>20), float64(after)/float64(before), 1)
	return nil
}

// fillGap makes the rows of events that were published.
func fillGap(ctx context.Context, db *postgres.Pool) error {
	const empty = `TRUNCATE outbox, outbox_sequences, outbox_epochs, outbox_epoch_checksums`
	const rows = `
		INSERT INTO outbox (event_id, topic, name, subject, payload, seq, published_at)
		SELECT id, $1, 'user.logged_in.v1', '', json_build_object('id', id, 'name', 'user.logged_in.v1', 'occurredAt', '2026-01-01T00:00:00Z',
			'producer', 'bench', 'subject', id, 'actor', json_build_object('type', 'user', 'id', id), 'outcome', 'success',
			'ip', '192.0.2.7', 'userAgent', 'curl/8.0', 'requestId', id, 'data', json_build_object('sessionId', id)), n, now()
		FROM (SELECT n, gen_random_uuid() AS id FROM generate_series($2::bigint, $3::bigint) AS n) AS events`
	const sequence = `INSERT INTO outbox_sequences (topic, last_seq) VALUES ($1, $2)`
	const epoch = `INSERT INTO outbox_epochs (topic, epoch, first_seq) VALUES ($1, 'BENCH', 1)`
	if _, err := db.Exec(ctx, empty); err != nil {
		return fmt.Errorf("empty outbox: %w", err)
	}
	const each = 50_000
	for first := 1; first <= missing; first += each {
		if _, err := db.Exec(ctx, rows, event.Audit, first, first+each-1); err != nil {
			return fmt.Errorf("fill outbox: %w", err)
		}
	}
	if _, err := db.Exec(ctx, sequence, event.Audit, missing); err != nil {
		return fmt.Errorf("fill outbox: %w", err)
	}
	if _, err := db.Exec(ctx, epoch, event.Audit); err != nil {
		return fmt.Errorf("fill outbox: %w", err)
	}
	if _, err := db.Exec(ctx, `VACUUM ANALYZE outbox`); err != nil {
		return fmt.Errorf("vacuum outbox: %w", err)
	}
	return nil
}

func outboxSize(ctx context.Context, db *postgres.Pool) (bytes int64, err error) {
	const query = `SELECT pg_relation_size('outbox') + pg_indexes_size('outbox')`
	if err := db.QueryRow(ctx, query).Scan(&bytes); err != nil {
		return 0, fmt.Errorf("measure outbox: %w", err)
	}
	return bytes, nil
}

// heal runs both sides until the consumer knows that it has a record of each event.
func (b *bench) heal(ctx context.Context, producer, consumer *postgres.Pool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := b.redis.FlushAll(ctx).Err(); err != nil {
		return fmt.Errorf("empty Redis: %w", err)
	}
	const group, interval = "bench", time.Second
	runners := []interface {
		Run(ctx context.Context) error
	}{
		reconcile.NewProducer(reconcile.ProducerConfig{
			Name: "bench", Outbox: outbox.NewPublished(producer, bus.NewPublisher(b.redis), b.epochs(producer)), Redis: b.redis,
			Interval: interval, Log: b.log, Metrics: prometheus.NewRegistry(),
		}),
		reconcile.NewConsumer(reconcile.ConsumerConfig{
			Database: consumer, Redis: b.redis, Topic: event.Audit, Group: group, Producers: []string{"bench"},
			Interval: interval, Log: b.log, Metrics: prometheus.NewRegistry(),
		}),
		bus.NewConsumer(bus.ConsumerConfig{
			Topic:       event.Audit,
			Subscriber:  bus.NewSubscriber(bus.SubscriberConfig{Client: b.redis, Group: group, Consumer: "c", Window: 1000, Log: b.log}),
			Rest:        func(context.Context, event.Event) error { return nil },
			DeadLetters: deadletter.New(consumer, outbox.New("bench"), time.Now),
			Consumed:    reconcile.NewRecords(consumer, event.Audit).Record, Log: b.log, Metrics: prometheus.NewRegistry(),
		}),
	}
	ended := make(chan error, len(runners))
	for _, r := range runners {
		go func() { ended <- r.Run(ctx) }()
	}
	err := await(ctx, func() (bool, error) {
		var consumed int64
		err := consumer.QueryRow(ctx, `SELECT coalesce(max(consumed_seq), 0) FROM epoch_watermarks`).Scan(&consumed)
		return consumed == missing, err
	})
	cancel()
	for range runners {
		err = errors.Join(err, <-ended)
	}
	return err
}
