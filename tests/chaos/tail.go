package main

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// delivery is the first appearance of an event on a stream.
type delivery struct {
	Stream, Entry     string
	Event             string
	Producer, Subject string
	Epoch             string // of the producer's outbox, if it has one
	Seq               int64  // the producer's sequence number, 0 if there is none
	OccurredAt, Seen  time.Time
	// Restored says that the event is older than a loss of the stream, but first seen after
	// it: it may have been published again, in any order.
	Restored bool
	Injected bool // by the run
}

// ordered reports whether the delivery has a place among those of its subject.
func (d delivery) ordered() bool {
	return d.Seq > 0 && d.Subject != "" && !d.Injected && !d.Restored
}

// tail reads the streams from their beginning.
type tail struct {
	redis   *redis.Client
	running sync.WaitGroup
	stop    context.CancelFunc

	mu         sync.Mutex
	from       map[string]string
	seen       map[string]bool // stream and event
	deliveries []delivery
	lostAt     []time.Time
}

func newTail(client *redis.Client) *tail {
	return &tail{redis: client, from: map[string]string{}, seen: map[string]bool{}, stop: func() {}}
}

func (t *tail) start(ctx context.Context) {
	ctx, t.stop = context.WithCancel(ctx)
	for stream := range streams {
		t.running.Go(func() { t.follow(ctx, stream) })
	}
}

func (t *tail) end() {
	t.stop()
	t.running.Wait()
}

// lost says that Redis has lost data at that time: the streams begin again.
func (t *tail) lost(at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lostAt = append(t.lostAt, at)
	t.from = map[string]string{}
}

// first returns the first delivery of each event, in the order of each stream.
func (t *tail) first() []delivery {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]delivery(nil), t.deliveries...)
}

func (t *tail) follow(ctx context.Context, stream string) {
	for ctx.Err() == nil {
		from, lostAt := t.position(stream)
		found, err := t.redis.XRead(ctx, &redis.XReadArgs{Streams: []string{stream, from}, Count: 500, Block: 500 * time.Millisecond}).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			_ = pause(ctx, 100*time.Millisecond) // Redis is unavailable, which a fault intends.
		}
		for _, s := range found {
			t.add(stream, lostAt, s.Messages)
		}
	}
}

func (t *tail) position(stream string) (from string, lostAt time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if from = t.from[stream]; from == "" {
		from = "0"
	}
	return from, t.lastLoss()
}

// lastLoss returns when Redis last lost data, or the zero time. It is called with mu locked.
func (t *tail) lastLoss() time.Time {
	if len(t.lostAt) == 0 {
		return time.Time{}
	}
	return t.lostAt[len(t.lostAt)-1]
}

// losses returns when Redis has lost data.
func (t *tail) losses() []time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.lostAt)
}

// add records entries, unless Redis has lost data since lostAt: then they are read again, or
// lost.
func (t *tail) add(stream string, lostAt time.Time, entries []redis.XMessage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.lastLoss().Equal(lostAt) {
		return
	}
	for _, entry := range entries {
		t.from[stream] = entry.ID
		var e struct {
			ID          string    `json:"id"`
			Producer    string    `json:"producer"`
			Subject     string    `json:"subject"`
			OccurredAt  time.Time `json:"occurredAt"`
			ProducerSeq int64     `json:"producerSeq"`
			Epoch       string    `json:"producerEpoch"`
		}
		text, _ := entry.Values["payload"].(string)
		if json.Unmarshal([]byte(text), &e) != nil || e.ID == "" || t.seen[stream+e.ID] {
			continue
		}
		t.seen[stream+e.ID] = true
		t.deliveries = append(t.deliveries, delivery{
			Stream: stream, Entry: entry.ID, Event: e.ID, Producer: e.Producer, Subject: e.Subject, Seq: e.ProducerSeq,
			Epoch: e.Epoch, OccurredAt: e.OccurredAt, Seen: time.Now(),
			Restored: e.OccurredAt.Before(lostAt),
		})
	}
}
