package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

const poison = 1000 // malformed entries on each stream

func streamFaults() []fault {
	return []fault{
		{
			name: "every entry twice and out of order", quick: true, lasts: 4 * time.Second,
			inject: duplicate, heal: func(_ context.Context, p *phase) error { return p.undo() },
			effect: func(_ context.Context, p *phase) (int64, error) { return atomic.LoadInt64(&p.hits), nil },
		},
		{
			name: "malformed entries among good ones", lasts: 3 * time.Second,
			inject: addMalformed, heal: func(_ context.Context, p *phase) error { return p.undo() }, effect: deadLettered,
		},
		{
			name: "audit-service cut off from Redis", parts: []string{auditService}, lasts: 5 * time.Second, effect: unread(auditService),
			inject: func(_ context.Context, p *phase) error { return p.stack.links[auditService].cut() },
			heal:   func(_ context.Context, p *phase) error { return p.stack.links[auditService].heal() },
		},
	}
}

// duplicate adds every new entry a second time, later and in another order.
func duplicate(ctx context.Context, p *phase) error {
	ctx, cancel := context.WithCancel(ctx)
	ended := onEveryStream(ctx, p.copy)
	p.undo = func() error {
		cancel()
		return ended()
	}
	return nil
}

// onEveryStream starts work on each stream; ended waits until it has ended.
func onEveryStream(ctx context.Context, work func(ctx context.Context, stream string) error) (ended func() error) {
	var g errgroup.Group
	for stream := range streams {
		g.Go(func() error { return work(ctx, stream) })
	}
	return g.Wait
}

// copy adds entries again until ctx ends. The same goroutine reads and writes, so it knows
// every copy before it reads it.
func (p *phase) copy(ctx context.Context, stream string) error {
	random := rand.New(rand.NewPCG(p.opts.seed, uint64(len(stream))))
	info, err := p.observer.redis.XInfoStream(ctx, stream).Result()
	if err != nil {
		return fmt.Errorf("copy %s: %w", stream, err)
	}
	from, own := info.LastGeneratedID, map[string]bool{}
	var batch []redis.XMessage
	for last := time.Now(); ; {
		found, err := p.observer.redis.XRead(ctx, &redis.XReadArgs{Streams: []string{stream, from}, Count: 200, Block: pollInterval}).Result()
		if err != nil && !errors.Is(err, redis.Nil) && ctx.Err() == nil {
			return fmt.Errorf("copy %s: %w", stream, err)
		}
		for _, s := range found {
			for _, entry := range s.Messages {
				if from = entry.ID; !own[entry.ID] {
					batch = append(batch, entry)
				}
			}
		}
		ended := ctx.Err() != nil
		if !ended && time.Since(last) < 3*pollInterval {
			continue
		}
		last = time.Now()
		random.Shuffle(len(batch), func(i, j int) { batch[i], batch[j] = batch[j], batch[i] })
		for _, entry := range batch {
			id, err := p.observer.redis.XAdd(context.WithoutCancel(ctx), &redis.XAddArgs{Stream: stream, Values: entry.Values}).Result()
			if err != nil {
				return fmt.Errorf("copy %s: %w", stream, err)
			}
			own[id] = true
			p.injected.add(stream, id)
			atomic.AddInt64(&p.hits, 1)
		}
		if batch = batch[:0]; ended {
			return nil //nolint:nilerr // The end of the fault interrupted the last read.
		}
	}
}

// addMalformed adds malformed entries to each stream for the duration of the fault.
func addMalformed(ctx context.Context, p *phase) error {
	p.own = newEntrySet()
	p.undo = onEveryStream(ctx, p.addMalformed)
	return nil
}

func (p *phase) addMalformed(ctx context.Context, stream string) error {
	const batch = 50
	for n := 0; n < poison; n += batch {
		pipe := p.observer.redis.Pipeline()
		for i := range batch {
			pipe.XAdd(ctx, &redis.XAddArgs{Stream: stream, Values: malformed(n + i)})
		}
		commands, err := pipe.Exec(ctx)
		if err != nil {
			return fmt.Errorf("add malformed entries to %s: %w", stream, err)
		}
		for _, c := range commands {
			if added, ok := c.(*redis.StringCmd); ok {
				p.injected.add(stream, added.Val())
				p.malformed.add(stream, added.Val())
				p.own.add(stream, added.Val())
			}
		}
		if err := pause(ctx, 3*time.Second*batch/poison); err != nil {
			return err
		}
	}
	return nil
}

// malformed returns the fields of a malformed entry; n selects the kind.
func malformed(n int) []any {
	const id, payload, metadata = "_watermill_message_uuid", "payload", "metadata"
	empty := "\x80" // an empty map in msgpack
	messageID := uuid.NewString()
	switch n % 6 {
	case 0:
		return []any{"junk", "1"}
	case 1:
		return []any{id, messageID, metadata, "\xc1\xff\x00", payload, "{}"}
	case 2:
		return []any{id, messageID, metadata, empty, payload, "not JSON \x00\xff"}
	case 3:
		return []any{id, messageID, metadata, empty, payload, `{"id":7}`}
	case 4:
		return []any{id, messageID, metadata, empty, payload, fmt.Sprintf(
			`{"id":%q,"name":"user.signed_up.v1","occurredAt":"2026-01-01T00:00:00Z","producer":"chaos","data":{}}`, uuid.NewString())}
	default:
		return []any{id, messageID}
	}
}

// deadLettered returns the number of dead letters of malformed entries, or 0 until every
// entry has become one.
func deadLettered(ctx context.Context, p *phase) (int64, error) {
	n, err := p.deadLettersOf(ctx, p.own)
	if err != nil || n != int64(poison*len(streams)) {
		return 0, err
	}
	return n, nil
}

// deadLettersOf returns how many of the entries have become dead letters.
func (p *phase) deadLettersOf(ctx context.Context, entries *entrySet) (n int64, err error) {
	found, err := p.observer.deadLetters(ctx)
	for _, d := range found {
		if entries.has(d.Stream, d.Entry) {
			n++
		}
	}
	return n, err
}

// entrySet is a set of stream entries. It is safe for concurrent use.
type entrySet struct {
	mu  sync.Mutex
	ids map[string]bool
}

func newEntrySet() *entrySet { return &entrySet{ids: map[string]bool{}} }

func (s *entrySet) add(stream, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids[stream+" "+id] = true
}

func (s *entrySet) has(stream, id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ids[stream+" "+id]
}
