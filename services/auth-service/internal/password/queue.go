package password

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/headgate/headgate/pkg/problem"
)

// ErrAccountBusy says that too many passwords of one account are waiting to be hashed. It is
// not a refusal that the audit log records: one row for each would be another way to waste
// resources.
var ErrAccountBusy = problem.New(problem.Unavailable, "busy", "Too many requests for this account at the same time. Try again shortly.").WithRetryAfter(2 * time.Second)

const (
	// queueTimeout is shorter than the timeout of the gateway, so that a client that waits
	// too long gets a Retry-After.
	queueTimeout = 8 * time.Second
	// maxWaitingConfirmations is how many of an account's confirmations may wait: as many
	// as a few open tabs of its owner need.
	maxWaitingConfirmations = 4
	// signInsPerConfirmation is how many sign-ins are served for each confirmation while
	// both wait.
	signInsPerConfirmation = 3
)

// queue hands out engines. There are two lines: sign-ins, of people whom nobody knows yet,
// and confirmations, of accounts whose owner is known. Confirmations never occupy the last
// engine, unless there is only one, and of each account one at a time is hashed. So a
// signed-in user, or many, can delay sign-ins only a little.
type queue struct {
	size int // of each line

	mu            sync.Mutex
	returned      sync.Cond
	engines       int
	idle          []engine // The last one is handed out first, because its process has started.
	signIns       []*waiter
	confirmations []*waiter
	hashing       map[string]bool // the accounts whose confirmations have an engine
	passed        int             // sign-ins that were served while a confirmation waited
}

// waiter is a request that waits for an engine.
type waiter struct {
	account string // empty for a sign-in
	granted chan engine
}

func newQueue(size int, engines []engine) *queue {
	q := &queue{size: size, engines: len(engines), idle: engines, hashing: map[string]bool{}}
	q.returned.L = &q.mu
	return q
}

// acquire waits for an engine, which must be released. account is empty for a sign-in. It
// fails with ErrBusy, ErrAccountBusy or the error of ctx, and then waits no longer.
func (q *queue) acquire(ctx context.Context, account string) (engine, error) {
	w := &waiter{account: account, granted: make(chan engine, 1)}
	if err := q.join(w); err != nil {
		return nil, err
	}
	timeout := time.NewTimer(queueTimeout)
	defer timeout.Stop()
	select {
	case e := <-w.granted:
		return e, nil
	case <-timeout.C:
		q.leave(w)
		return nil, ErrBusy
	case <-ctx.Done():
		q.leave(w)
		return nil, fmt.Errorf("wait to hash: %w", ctx.Err())
	}
}

func (q *queue) join(w *waiter) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	line := &q.signIns
	if w.account != "" {
		line = &q.confirmations
		if q.waiting(w.account) >= maxWaitingConfirmations {
			return ErrAccountBusy
		}
	}
	*line = append(*line, w)
	q.dispatch()
	if len(*line) > q.size {
		*line = slices.DeleteFunc(*line, w.is)
		return ErrBusy
	}
	return nil
}

func (w *waiter) is(other *waiter) bool { return w == other }

func (q *queue) waiting(account string) int {
	n := 0
	for _, w := range q.confirmations {
		if w.account == account {
			n++
		}
	}
	return n
}

// leave takes a request out of its line. If it was granted an engine meanwhile, that is
// released.
func (q *queue) leave(w *waiter) {
	q.mu.Lock()
	q.signIns = slices.DeleteFunc(q.signIns, w.is)
	q.confirmations = slices.DeleteFunc(q.confirmations, w.is)
	q.mu.Unlock()
	select {
	case e := <-w.granted:
		q.release(w.account, e)
	default:
	}
}

// release takes back an engine that acquire returned for account.
func (q *queue) release(account string, e engine) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.hashing, account)
	q.idle = append(q.idle, e)
	q.dispatch()
	q.returned.Broadcast()
}

// dispatch hands out idle engines. The caller holds q.mu.
func (q *queue) dispatch() {
	for len(q.idle) > 0 {
		w := q.next()
		if w == nil {
			return
		}
		last := len(q.idle) - 1
		w.granted <- q.idle[last]
		q.idle = q.idle[:last]
	}
}

// next takes the request that is served next out of its line; nil if there is none. The
// caller holds q.mu.
func (q *queue) next() *waiter {
	c := q.nextConfirmation()
	if len(q.signIns) > 0 && (c < 0 || q.passed < signInsPerConfirmation) {
		if c >= 0 {
			q.passed++
		}
		w := q.signIns[0]
		q.signIns = slices.Delete(q.signIns, 0, 1)
		return w
	}
	if c < 0 {
		return nil
	}
	q.passed = 0
	w := q.confirmations[c]
	q.confirmations = slices.Delete(q.confirmations, c, c+1)
	q.hashing[w.account] = true
	return w
}

// nextConfirmation returns the index of the confirmation that may be hashed now, or -1.
func (q *queue) nextConfirmation() int {
	if len(q.hashing) >= max(1, q.engines-1) {
		return -1
	}
	return slices.IndexFunc(q.confirmations, func(w *waiter) bool { return !q.hashing[w.account] })
}

// drain waits until all engines are idle and returns them.
func (q *queue) drain() []engine {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.idle) < q.engines {
		q.returned.Wait()
	}
	return q.idle
}
