package limit

import (
	"context"
	"sync"
	"time"
)

// leases are the permits that this gateway has taken from Redis in advance. A key
// begins with one at a time; a lease that is used up early is followed by one of twice
// as many, up to a twentieth of the limit, and one that ends unused by half as many.
// So who asks seldom wastes nothing, and who asks often costs a round trip for a
// twentieth of the limit.
type leases struct {
	now func() time.Time

	mu   sync.Mutex
	held map[id]*held
}

// held is what is held of one key.
type held struct {
	permits int
	until   time.Time     // when the permits end, or Redis is to be asked again if there were none
	reset   time.Time     // when some may pass again
	size    int           // of the lease
	asking  chan struct{} // closed when the one who asks Redis has the answer; nil if nobody does
	waiting int           // for that
	fault   error         // the outcome of the last who asked
	last    granted
}

const (
	leasesOfLimit  = 20
	leasesOfWindow = 20
	longestLease   = 5 * time.Second
	// maxHeld bounds the memory. Beyond it some others are given up, with their permits.
	maxHeld  = 100_000
	giveUp   = 16
	maxTries = 64
)

func newLeases(now func() time.Time) *leases { return &leases{now: now, held: map[id]*held{}} }

type asker func(ctx context.Context, key Key, want int, life time.Duration) (granted, error)

// take uses a permit, or says that there is none. It fails if Redis does.
func (l *leases) take(ctx context.Context, key Key, ask asker) (Decision, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range maxTries {
		h := l.of(key)
		if d, ok := h.spend(key, l.now()); ok {
			return d, nil
		}
		if h.asking == nil {
			l.renew(ctx, key, h, ask)
			if h.fault != nil {
				return Decision{}, h.fault
			}
			continue
		}
		asking := h.asking
		h.waiting++
		l.mu.Unlock()
		<-asking // Redis answers within the patience of its client.
		l.mu.Lock()
		h.waiting--
		if h.fault != nil {
			return Decision{}, h.fault
		}
	}
	// So many others were faster that Redis may as well decide.
	l.mu.Unlock()
	got, err := ask(ctx, key, 1, 0)
	l.mu.Lock()
	return Decision{Allowed: got.permits > 0, Policy: key.Policy, Reset: got.reset}, err
}

// spend decides by what is held; ok is false if Redis must be asked.
func (h *held) spend(key Key, now time.Time) (d Decision, ok bool) {
	if !now.Before(h.until) {
		return Decision{}, false
	}
	d = Decision{Allowed: h.permits > 0, Policy: key.Policy, Reset: h.reset.Sub(now)}
	if d.Allowed {
		h.permits--
		d.Remaining = h.permits
		return d, true
	}
	return d, h.last.permits == 0
}

// renew asks Redis for permits. l.mu is held, but not while Redis is asked.
func (l *leases) renew(ctx context.Context, key Key, h *held, ask asker) {
	rate := key.Policy.Rate
	switch {
	case h.permits > 0: // They ended.
		h.size = max(1, h.size/2)
	case h.size == 0:
		h.size = 1
	case h.last.permits > 0 && l.now().Before(h.until): // They were too few.
		h.size = min(2*h.size, max(1, rate.Requests/leasesOfLimit))
	}
	h.permits = 0
	life := min(rate.Window/leasesOfWindow, longestLease)
	h.asking = make(chan struct{})
	want, began := max(h.size, h.waiting+1), l.now()
	l.mu.Unlock()
	// The others wait for the answer, whatever becomes of this request.
	got, err := ask(context.WithoutCancel(ctx), key, want, life)
	l.mu.Lock()
	h.fault, h.last, h.permits = err, got, got.permits
	// Redis counts the life from later on. Who is refused again and again costs no
	// more round trips than who is not, and is not forgotten to be let in again.
	h.until = began.Add(life)
	h.reset = l.now().Add(got.reset)
	if got.permits == 0 && h.reset.Before(h.until) {
		h.until = h.reset
	}
	close(h.asking)
	h.asking = nil
}

func (l *leases) of(key Key) *held {
	h := l.held[key.id()]
	if h != nil {
		return h
	}
	if len(l.held) >= maxHeld {
		l.makeRoom()
	}
	h = &held{}
	l.held[key.id()] = h
	return h
}

// makeRoom gives up what has ended among a few, or one of them.
func (l *leases) makeRoom() {
	now, looked := l.now(), 0
	for name, h := range l.held {
		if h.asking != nil {
			continue
		}
		looked++
		if !now.Before(h.until) || looked == giveUp {
			delete(l.held, name)
		}
		if looked == giveUp {
			return
		}
	}
}

func (l *leases) clear(key Key) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.held[key.id()]
	if h == nil || h.asking != nil {
		return false
	}
	delete(l.held, key.id())
	return true
}
