package ratelimit

import (
	"context"
	"sync"
	"time"
)

// leases holds the permits that this gateway has taken from Redis in advance. The first
// lease of a key has one permit; a lease that is used up early is followed by one of
// twice the size, up to a twentieth of the limit, and one that expires unused by one of
// half the size. So an occasional client wastes no permits, and a frequent one costs a
// round trip for a twentieth of its limit.
type leases struct {
	now func() time.Time

	mu    sync.Mutex
	byKey map[ID]*lease
}

// lease is the current lease of one key.
type lease struct {
	permits  int
	expires  time.Time     // when the permits expire or, if none were granted, when to ask Redis again
	reset    time.Time     // when requests may pass again
	size     int           // permits to ask for
	renewing chan struct{} // closed when Redis has answered; nil if no request is being made
	waiting  int           // callers that wait for renewing
	err      error         // of the last renewal
	last     grant
	// inRedis is how many requests Redis last counted, with the permits of this lease, and
	// asOf the latest time at which one of them may pass.
	inRedis int
	asOf    time.Time
}

const (
	leasesOfLimit  = 20
	leasesOfWindow = 20
	longestLease   = 5 * time.Second
	// maxLeases bounds the memory. Beyond it others are dropped, with their permits.
	maxLeases   = 100_000
	maxExamined = 16
	maxTries    = 64
)

func newLeases(now func() time.Time) *leases { return &leases{now: now, byKey: map[ID]*lease{}} }

// askFunc asks Redis for a number of permits that expire after life.
type askFunc func(ctx context.Context, key Key, want int, life time.Duration) (grant, error)

// take uses a permit or decides that there is none. It fails if ask fails.
func (l *leases) take(ctx context.Context, key Key, ask askFunc) (Decision, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range maxTries {
		current := l.of(key)
		if d, ok := current.spend(key, l.now()); ok {
			return d, nil
		}
		if current.renewing == nil {
			l.renew(ctx, key, current, ask)
			if current.err != nil {
				return Decision{}, current.err
			}
			continue
		}
		renewing := current.renewing
		current.waiting++
		l.mu.Unlock()
		<-renewing // Bounded by the timeout of the Redis client.
		l.mu.Lock()
		current.waiting--
		if current.err != nil {
			return Decision{}, current.err
		}
	}
	// So many other callers were faster that Redis may as well decide.
	l.mu.Unlock()
	got, err := ask(ctx, key, 1, 0)
	l.mu.Lock()
	return Decision{Allowed: got.permits > 0, Policy: key.Policy, Reset: got.reset}, err
}

// spend decides from the lease alone; ok is false if Redis must be asked.
func (l *lease) spend(key Key, now time.Time) (d Decision, ok bool) {
	if !now.Before(l.expires) {
		return Decision{}, false
	}
	d = Decision{Allowed: l.permits > 0, Policy: key.Policy, Reset: l.reset.Sub(now)}
	if d.Allowed {
		l.permits--
		d.Remaining = l.permits
		return d, true
	}
	return d, l.last.permits == 0
}

// renew asks Redis for permits. The caller has locked l.mu; renew unlocks it while it
// waits for Redis.
func (l *leases) renew(ctx context.Context, key Key, current *lease, ask askFunc) {
	rate := key.Policy.Rate
	switch {
	case current.permits > 0: // The lease expired unused.
		current.size = max(1, current.size/2)
	case current.size == 0:
		current.size = 1
	case current.last.permits > 0 && l.now().Before(current.expires): // It was used up early.
		current.size = min(2*current.size, max(1, rate.Requests/leasesOfLimit))
	}
	current.permits = 0
	life := min(rate.Window/leasesOfWindow, longestLease)
	current.renewing = make(chan struct{})
	want, began := max(current.size, current.waiting+1), l.now()
	l.mu.Unlock()
	// Other callers wait for the answer, so it must not end with this request.
	got, err := ask(context.WithoutCancel(ctx), key, want, life)
	l.mu.Lock()
	current.err, current.last, current.permits = err, got, got.permits
	// Redis starts the lease's life later than began. A client that is rejected again and
	// again costs no more round trips than others, and its lease is not dropped early.
	current.expires = began.Add(life)
	current.reset = l.now().Add(got.reset)
	if got.permits == 0 && current.reset.Before(current.expires) {
		current.expires = current.reset
	}
	if err == nil {
		current.inRedis, current.asOf = got.used+got.permits, began.Add(life)
	}
	close(current.renewing)
	current.renewing = nil
}

func (l *leases) of(key Key) *lease {
	name := key.ID()
	current := l.byKey[name]
	if current != nil {
		return current
	}
	if len(l.byKey) >= maxLeases {
		l.makeRoom()
	}
	current = &lease{}
	l.byKey[name] = current
	return current
}

// makeRoom examines a few leases and drops those that have expired, or the last of them.
func (l *leases) makeRoom() {
	now, examined := l.now(), 0
	for name, candidate := range l.byKey {
		if candidate.renewing != nil {
			continue
		}
		examined++
		if !now.Before(candidate.expires) || examined == maxExamined {
			delete(l.byKey, name)
		}
		if examined == maxExamined {
			return
		}
	}
}

// reported returns how many requests of a key Redis last counted, and until when one of them
// may pass.
func (l *leases) reported(key Key) (inRedis int, asOf time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	current := l.of(key)
	return current.inRedis, current.asOf
}

func (l *leases) clear(key Key) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	name := key.ID()
	current := l.byKey[name]
	if current == nil || current.renewing != nil {
		return false
	}
	delete(l.byKey, name)
	return true
}
