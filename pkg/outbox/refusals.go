package outbox

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headgate/headgate/pkg/event"
)

// Refusals records what strangers do without a row for each request, so that nobody without
// an account can fill the outbox and the audit log. The first occurrence of a payload from
// a network is stored at once. Further ones are counted, and stored as one event a minute.
// Beyond maxCounted networks and payloads, those of other networks are counted together,
// in events without an IP address.
//
// It stores every count when its Run ends. Only a crash loses the counts of a minute. It is
// safe for concurrent use.
type Refusals struct {
	box *Box
	db  *pgxpool.Pool
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	counts map[refusalKey]*counted
}

// refusalKey is a hash of a network and a payload, so that its size is fixed.
type refusalKey [sha256.Size]byte

// counted is what happened since the last event about it.
type counted struct {
	key         refusalKey
	payload     event.Countable
	ip          string // of the first; empty for several networks
	n           int
	first, last time.Time
}

const (
	flushEvery    = time.Minute
	maxCounted    = 1000
	refusalWait   = 2 * time.Second
	flushWait     = 5 * time.Second
	eventsAtATime = 100
	maxPayload    = 1 << 10 // Longer ones are not counted. Only another service could send one.
)

// NewRefusals returns Refusals without counts.
func NewRefusals(box *Box, db *pgxpool.Pool, log *slog.Logger, now func() time.Time) *Refusals {
	return &Refusals{box: box, db: db, log: log, now: now, counts: map[refusalKey]*counted{}}
}

// Refused is a web.Options.Refused. It records each request of a caller who is signed in,
// and counts those of others.
func (r *Refusals) Refused(ctx context.Context, refused event.Payload) {
	actor := event.OriginFrom(ctx).Actor.ID
	if p, ok := refused.(event.Countable); ok && actor == "" {
		r.Record(ctx, p)
		return
	}
	if err := r.store(ctx, event.New(ctx, r.now(), actor, refused)); err != nil {
		r.log.ErrorContext(ctx, "record of refused request failed", "event", refused.EventName(), "error", err.Error())
	}
}

// Record stores an event about a stranger, or counts it. It reports whether it has waited
// for the database.
func (r *Refusals) Record(ctx context.Context, p event.Countable) (waited bool) {
	at := r.now()
	if r.count(event.OriginFrom(ctx), p, at) {
		return false
	}
	err := r.store(ctx, event.New(ctx, at, "", p))
	if err != nil {
		r.log.WarnContext(ctx, "record of refused request failed; counting it", "event", p.EventName(), "error", err.Error())
		r.count(event.OriginFrom(ctx), p, at)
	}
	return true
}

// count counts an occurrence, unless it is the first of its kind.
func (r *Refusals) count(from event.Origin, p event.Countable, at time.Time) bool {
	data, err := json.Marshal(p)
	if err != nil || len(data) > maxPayload {
		return false
	}
	key := keyOf(from.Network(), p.EventName(), data)
	r.mu.Lock()
	defer r.mu.Unlock()
	c, known := r.counts[key]
	switch {
	case known:
	case len(r.counts) < maxCounted:
		r.counts[key] = &counted{key: key, payload: p, ip: from.IP}
		return false
	default:
		if key = keyOf("", p.EventName(), data); r.counts[key] == nil {
			// Routes and codes are those of the product, so there are few of these.
			r.counts[key] = &counted{key: key, payload: p}
		}
		c = r.counts[key]
	}
	if c.n == 0 {
		c.first = at
	}
	c.n, c.last = c.n+1, at
	return true
}

func keyOf(network, name string, payload []byte) refusalKey {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%s", network, name, payload)
	return refusalKey(h.Sum(nil))
}

// store stores events. A client that hangs up does not prevent it.
func (r *Refusals) store(ctx context.Context, events ...event.Event) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refusalWait)
	defer cancel()
	return pgx.BeginFunc(ctx, r.db, func(tx pgx.Tx) error { return r.box.Add(ctx, tx, events...) })
}

// Run implements service.Runner: it stores the counts every minute, and when ctx ends.
func (r *Refusals) Run(ctx context.Context) error {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := r.Flush(ctx); err != nil && ctx.Err() == nil {
				r.log.WarnContext(ctx, "record of refused requests failed; retrying", "next_in", flushEvery.String(), "error", err.Error())
			}
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushWait)
			defer cancel()
			if err := r.Flush(ctx); err != nil {
				r.log.ErrorContext(ctx, "record of refused requests failed", "lost", r.pending(), "error", err.Error())
			}
			return nil
		}
	}
}

// Flush stores what was counted. What it cannot store stays counted. It forgets what did
// not happen again since the last call, so the next occurrence is stored at once.
func (r *Refusals) Flush(ctx context.Context) error {
	pending := r.take()
	for len(pending) > 0 {
		batch := pending[:min(len(pending), eventsAtATime)]
		events := make([]event.Event, len(batch))
		for i, c := range batch {
			events[i] = c.event(ctx)
		}
		if err := r.store(ctx, events...); err != nil {
			r.putBack(pending)
			return fmt.Errorf("store counts: %w", err)
		}
		pending = pending[len(batch):]
	}
	return nil
}

// event returns the event for what was counted.
func (c *counted) event(ctx context.Context) event.Event {
	p := event.Payload(c.payload)
	if c.n > 1 {
		p = c.payload.Counted(c.n, c.first)
	}
	origin := event.Origin{Actor: event.Actor{Type: "anonymous"}, IP: c.ip}
	return event.New(event.WithOrigin(ctx, origin), c.last, "", p)
}

// take returns the counts and resets them.
func (r *Refusals) take() []counted {
	r.mu.Lock()
	defer r.mu.Unlock()
	var taken []counted
	for key, c := range r.counts {
		if c.n == 0 {
			delete(r.counts, key)
			continue
		}
		taken = append(taken, *c)
		c.n = 0
	}
	return taken
}

// putBack adds counts that could not be stored.
func (r *Refusals) putBack(counts []counted) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, lost := range counts {
		c := r.counts[lost.key]
		if c == nil {
			r.counts[lost.key] = &lost
			continue
		}
		if c.n == 0 {
			c.last = lost.last
		}
		c.first, c.n = lost.first, c.n+lost.n
	}
}

func (r *Refusals) pending() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, c := range r.counts {
		n += c.n
	}
	return n
}
