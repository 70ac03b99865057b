package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
)

const published = 50_000

func (b *bench) publish(ctx context.Context) error {
	stock, err := redisstream.NewPublisher(redisstream.PublisherConfig{Client: b.redis}, watermill.NopLogger{})
	if err != nil {
		return fmt.Errorf("make publisher: %w", err)
	}
	medians, err := b.alternate(ctx,
		variant{"raw", b.publishRaw},
		variant{"ours", func(ctx context.Context) (float64, error) {
			return b.publishWith(ctx, bus.NewPublisher(b.redis), published, 100)
		}},
		variant{"stock", func(ctx context.Context) (float64, error) { return b.publishWith(ctx, stock, fewEntries, 1) }},
	)
	if err != nil {
		return err
	}
	b.report.figure("publish", "go-redis XADD, pipelines of 100", perSecond(medians["raw"]))
	b.report.figure("publish", "watermill-redisstream, one by one", perSecond(medians["stock"]))
	b.report.atLeast("publish", "bus.Publisher, calls of 100 / raw", perSecond(medians["ours"]), medians["ours"]/medians["raw"], 0.7)
	return nil
}

// publishRaw sends only what the wire format needs.
func (b *bench) publishRaw(ctx context.Context) (float64, error) {
	topic, payload := b.stream(), strings.Repeat("x", 256)
	encoded, err := redisstream.DefaultMarshallerUnmarshaller{}.Marshal(topic, message.NewMessage("", nil))
	if err != nil {
		return 0, fmt.Errorf("encode: %w", err)
	}
	start := time.Now()
	for range published / 100 {
		pipe := b.redis.Pipeline()
		for range 100 {
			pipe.XAdd(ctx, &redis.XAddArgs{Stream: topic, Values: []any{
				redisstream.UUIDHeaderKey, uuid.NewString(), "metadata", encoded["metadata"], "payload", payload,
			}})
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return 0, fmt.Errorf("add: %w", err)
		}
	}
	return published / time.Since(start).Seconds(), b.redis.Del(ctx, topic).Err()
}

func (b *bench) publishWith(ctx context.Context, publisher message.Publisher, n, each int) (float64, error) {
	topic, payload := b.stream(), []byte(strings.Repeat("x", 256))
	start := time.Now()
	for range n / each {
		batch := make([]*message.Message, each)
		for i := range batch {
			batch[i] = message.NewMessageWithContext(ctx, uuid.NewString(), payload)
			batch[i].Metadata.Set("name", "user.signed_up.v1")
		}
		if err := publisher.Publish(topic, batch...); err != nil {
			return 0, fmt.Errorf("publish: %w", err)
		}
	}
	return float64(n) / time.Since(start).Seconds(), b.redis.Del(ctx, topic).Err()
}

const relayed = 20_000

// relay compares the outbox's relay with a loop that only selects, adds and marks: without
// sequence numbers, order and checksums.
func (b *bench) relay(ctx context.Context) error {
	db, _, err := b.database(ctx, "bench_relay", outbox.Schema())
	if err != nil {
		return err
	}
	defer db.Close()
	medians, err := b.alternate(ctx,
		variant{"loop", func(ctx context.Context) (float64, error) { return b.relayRound(ctx, db, b.relayLoop) }},
		variant{"ours", func(ctx context.Context) (float64, error) { return b.relayRound(ctx, db, b.relayOurs) }},
	)
	if err != nil {
		return err
	}
	b.report.figure("relay", "SELECT SKIP LOCKED 500, XADDs, UPDATE", perSecond(medians["loop"]))
	b.report.compared("relay", "outbox.Relay / that, numbering and ordering, too", perSecond(medians["ours"]), medians["ours"]/medians["loop"])
	return nil
}

func (b *bench) relayRound(ctx context.Context, db *postgres.Pool, work func(context.Context, *postgres.Pool) error) (float64, error) {
	if _, err := db.Exec(ctx, `TRUNCATE outbox, outbox_sequences, outbox_epochs, outbox_epoch_checksums`); err != nil {
		return 0, fmt.Errorf("empty outbox: %w", err)
	}
	box := outbox.New("bench")
	for range relayed / 500 {
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			batch := &pgx.Batch{}
			for range 500 {
				e := event.New(ctx, time.Now(), uuid.NewString(), event.UserLoggedIn{SessionID: uuid.NewString()})
				if err := box.Queue(batch, e); err != nil {
					return err
				}
			}
			return tx.SendBatch(ctx, batch).Close()
		})
		if err != nil {
			return 0, fmt.Errorf("fill outbox: %w", err)
		}
	}
	if _, err := db.Exec(ctx, `VACUUM ANALYZE outbox`); err != nil {
		return 0, fmt.Errorf("vacuum outbox: %w", err)
	}
	start := time.Now()
	if err := work(ctx, db); err != nil {
		return 0, err
	}
	return relayed / time.Since(start).Seconds(), b.redis.Del(ctx, string(event.Audit)).Err()
}

// epochs returns the epochs of an outbox.
func (b *bench) epochs(db *postgres.Pool) *outbox.Epochs {
	return outbox.NewEpochs(db, b.redis, "bench", b.log, prometheus.NewRegistry())
}

func (b *bench) relayOurs(ctx context.Context, db *postgres.Pool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	relay := outbox.NewRelay(db, bus.NewPublisher(b.redis), b.epochs(db), b.log, prometheus.NewRegistry())
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(ctx) }()
	err := await(ctx, func() (bool, error) {
		var left int
		err := db.QueryRow(ctx, `SELECT count(*) FROM (SELECT FROM outbox WHERE published_at IS NULL LIMIT 1) AS one`).Scan(&left)
		return left == 0, err
	})
	cancel()
	return errors.Join(err, <-ended)
}

func (b *bench) relayLoop(ctx context.Context, db *postgres.Pool) error {
	for done := 0; done < relayed; {
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, `SELECT id, event_id::text, topic, name, payload FROM outbox
				WHERE published_at IS NULL ORDER BY id LIMIT 500 FOR UPDATE SKIP LOCKED`)
			if err != nil {
				return err
			}
			defer rows.Close()
			var ids []int64
			pipe := b.redis.Pipeline()
			for rows.Next() {
				var id int64
				var eventID, topic, name string
				var payload []byte
				if err := rows.Scan(&id, &eventID, &topic, &name, &payload); err != nil {
					return err
				}
				m := message.NewMessage(eventID, payload)
				m.Metadata.Set("name", name)
				values, err := redisstream.DefaultMarshallerUnmarshaller{}.Marshal(topic, m)
				if err != nil {
					return err
				}
				pipe.XAdd(ctx, &redis.XAddArgs{Stream: topic, Values: values})
				ids = append(ids, id)
			}
			if err := rows.Err(); err != nil {
				return err
			}
			if _, err := pipe.Exec(ctx); err != nil {
				return err
			}
			done += len(ids)
			_, err = tx.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE id = ANY($1)`, ids)
			return err
		})
		if err != nil {
			return fmt.Errorf("relay by hand: %w", err)
		}
	}
	return nil
}

// await polls a condition.
func await(ctx context.Context, condition func() (bool, error)) error {
	for {
		ok, err := condition()
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}
