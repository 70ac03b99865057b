package bus

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// slots is a semaphore with one token for each message that may still be delivered.
type slots chan struct{}

func newSlots(n int) slots {
	s := make(slots, n)
	s.release(n)
	return s
}

// reserve waits for a free slot and takes all free ones, at most limit. It returns
// how many it took, 0 if ctx ended first.
func (s slots) reserve(ctx context.Context, limit int) int {
	select {
	case <-ctx.Done():
		return 0
	case <-s:
	}
	for n := 1; n < limit; n++ {
		if !s.tryReserve() {
			return n
		}
	}
	return limit
}

// tryReserve takes one slot if one is free.
func (s slots) tryReserve() bool {
	select {
	case <-s:
		return true
	default:
		return false
	}
}

func (s slots) release(n int) {
	for range n {
		s <- struct{}{}
	}
}

// waitList has room for the messages that wait for their next attempt. They are in
// flight, but other messages have their slots in the window.
type waitList struct {
	places  slots
	retries slots // attempts of messages on the list; few, so that the window keeps its share of the dependencies
	delayed slots // the same for messages that were delayed last. Each may wait for a lock again, so others must not queue behind them
	length  prometheus.Gauge
	full    whenFull
}

// newWaitList returns a list for the messages of a window.
func newWaitList(places, window int, full whenFull, length prometheus.Gauge) *waitList {
	return &waitList{
		places: newSlots(places), retries: newSlots(max(1, window/8)), delayed: newSlots(max(1, window/8)), length: length, full: full,
	}
}

// attemptsAfter returns the semaphore for the attempt after a failure of a class.
func (l *waitList) attemptsAfter(class failureClass) slots {
	if class == classDelayed {
		return l.delayed
	}
	return l.retries
}

// whenFull is what happens to a delayed message for which the wait list has no room.
type whenFull int

const (
	waitWhenFull  whenFull = iota // it waits in its slot
	leaveWhenFull                 // its source takes it back and delivers it again later
)

// slot is the place of one message in flight: in the window, or on the wait list
// from its first wait on. A nil slot is that of a message whose source has no wait
// list. Its methods may be called concurrently.
type slot struct {
	list *waitList

	mu         sync.Mutex
	from       slots // from which the slot was taken; nil after release
	attempt    slots // of the list, during an attempt of a message on it
	quarantine slots // during the first attempt of an entry in quarantine
	listed     bool
	left       bool // the entry stays pending in Redis, to be claimed later
}

// rest waits for delay after a failure, on the wait list if the list has room. It returns
// false if stop ended before the message may have its next attempt.
func (s *slot) rest(stop context.Context, delay time.Duration, class failureClass) bool {
	listed := s.yield()
	if !wait(stop, delay) {
		return false
	}
	if !listed {
		return true
	}
	attempts := s.list.attemptsAfter(class)
	if attempts.reserve(stop, 1) == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.from == nil {
		attempts.release(1)
		return false
	}
	s.attempt = attempts
	return true
}

// yield moves the message to the wait list if the list has room, and reports
// whether it is there.
func (s *slot) yield() bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// An entry that fails in an orderly way does not kill its consumer.
	giveBack(&s.attempt)
	giveBack(&s.quarantine)
	if !s.listed && s.from != nil && s.list.places.tryReserve() {
		s.from.release(1)
		s.from, s.listed = s.list.places, true
		s.list.length.Inc()
	}
	return s.listed
}

// mustLeave reports whether a delayed message has to leave, because the wait list has
// no room for it.
func (s *slot) mustLeave() bool { return s != nil && s.list.full == leaveWhenFull && !s.yield() }

// leave says that the entry is to stay pending in Redis after a negative
// acknowledgement.
func (s *slot) leave() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = true
}

func (s *slot) isLeft() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left
}

// release gives back what the message still has.
func (s *slot) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listed && s.from != nil {
		s.list.length.Dec()
	}
	giveBack(&s.from)
	giveBack(&s.attempt)
	giveBack(&s.quarantine)
}

// giveBack releases the token that a message has of s, if s is not nil.
func giveBack(s *slots) {
	if *s != nil {
		s.release(1)
		*s = nil
	}
}

type slotKey struct{}

// slotOf returns the slot of the message whose context ctx is, or nil.
func slotOf(ctx context.Context) *slot {
	s, _ := ctx.Value(slotKey{}).(*slot)
	return s
}
