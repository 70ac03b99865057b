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

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
)

// Refusals records refused requests without a row for each, so that nobody can fill the outbox
// and the audit log. The first occurrence of a payload is stored at once and in full. Further
// ones are counted, and stored as one event a minute. Requests of strangers are counted by
// network, all others by caller and account, in events without an IP address: a deletion has
// nothing to erase in them, also if they are stored after it.
//
// Beyond maxCounted networks and payloads, those of other networks are counted together, in
// events without an IP address. Beyond maxCounted accounts and payloads, those of other
// accounts are, in events without an actor and a subject. Each kind has a table of its own, so
// strangers cannot make the actions of users anonymous.
//
// It stores every count when its Run ends. Only a crash loses the counts of a minute. It is
// safe for concurrent use.
type Refusals struct {
	box *Box
	db  *postgres.Pool
	log *slog.Logger
	now func() time.Time

	mu        sync.Mutex
	strangers map[refusalKey]*counted
	accounts  map[refusalKey]*counted
}

// refusalKey is a hash of a source and a payload, so that its size is fixed.
type refusalKey [sha256.Size]byte

// source is who is counted: a network, or an account and its caller.
type source struct {
	ip      string // of the first request of a network; empty for several networks
	network string
	actor   event.Actor
	subject string
}

func sourceOf(from event.Origin, subject string) source {
	if subject == "" && from.Actor.ID == "" {
		return source{ip: from.IP, network: from.Network(), actor: event.Actor{Type: anonymous}}
	}
	return source{actor: from.Actor, subject: subject}
}

func (s source) isStranger() bool { return s.subject == "" && s.actor.ID == "" }

const anonymous = "anonymous"

// counted is what happened since the last event about it.
type counted struct {
	key         refusalKey
	table       map[refusalKey]*counted
	payload     event.Countable
	from        source
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
func NewRefusals(box *Box, db *postgres.Pool, log *slog.Logger, now func() time.Time) *Refusals {
	return &Refusals{box: box, db: db, log: log, now: now, strangers: map[refusalKey]*counted{}, accounts: map[refusalKey]*counted{}}
}

// Refused is a web.Options.Refused. The subject is the caller, if signed in.
func (r *Refusals) Refused(ctx context.Context, refused event.Countable) {
	r.Record(ctx, event.OriginFrom(ctx).Actor.ID, refused)
}

// Record stores an event about an account, or about a stranger if subject is empty, or counts
// it. It reports whether it has waited for the database.
func (r *Refusals) Record(ctx context.Context, subject string, p event.Countable) (waited bool) {
	at, from := r.now(), sourceOf(event.OriginFrom(ctx), subject)
	if r.count(from, p, at) {
		return false
	}
	err := r.store(ctx, event.New(ctx, at, subject, p))
	if err != nil {
		r.log.WarnContext(ctx, "record of refused request failed; counting it", "event", p.EventName(), "error", err.Error())
		r.count(from, p, at)
	}
	return true
}

// count counts an occurrence, unless it is the first of its kind.
func (r *Refusals) count(from source, p event.Countable, at time.Time) bool {
	data, err := json.Marshal(p)
	if err != nil || len(data) > maxPayload {
		return false
	}
	key := from.key(p.EventName(), data)
	r.mu.Lock()
	defer r.mu.Unlock()
	table := r.accounts
	if from.isStranger() {
		table = r.strangers
	}
	c, known := table[key]
	switch {
	case known:
	case len(table) < maxCounted:
		table[key] = &counted{key: key, table: table, payload: p, from: from}
		return false
	default:
		all := source{actor: event.Actor{Type: anonymous}}
		if key = all.key(p.EventName(), data); table[key] == nil {
			// Routes and codes are those of the product, so there are few of these.
			table[key] = &counted{key: key, table: table, payload: p, from: all}
		}
		c = table[key]
	}
	if c.n == 0 {
		c.first = at
	}
	c.n, c.last = c.n+1, at
	return true
}

func (s source) key(name string, payload []byte) refusalKey {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%s\x00%s\x00%s", s.network, s.actor.ID, s.subject, name, payload)
	return refusalKey(h.Sum(nil))
}

// store stores events. A client that hangs up does not prevent it.
func (r *Refusals) store(ctx context.Context, events ...event.Event) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refusalWait)
	defer cancel()
	return r.db.Transact(ctx, func(tx pgx.Tx) error { return r.box.Add(ctx, tx, events...) })
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
	origin := event.Origin{Actor: c.from.actor, IP: c.from.ip}
	return event.New(event.WithOrigin(ctx, origin), c.last, c.from.subject, p)
}

// take returns the counts and resets them.
func (r *Refusals) take() []counted {
	r.mu.Lock()
	defer r.mu.Unlock()
	var taken []counted
	for _, table := range r.tables() {
		for key, c := range table {
			if c.n == 0 {
				delete(table, key)
				continue
			}
			taken = append(taken, *c)
			c.n = 0
		}
	}
	return taken
}

// putBack adds counts that could not be stored.
func (r *Refusals) putBack(counts []counted) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, lost := range counts {
		c := lost.table[lost.key]
		if c == nil {
			lost.table[lost.key] = &lost
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
	for _, table := range r.tables() {
		for _, c := range table {
			n += c.n
		}
	}
	return n
}

func (r *Refusals) tables() [2]map[refusalKey]*counted {
	return [...]map[refusalKey]*counted{r.strangers, r.accounts}
}
