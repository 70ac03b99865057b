package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	workers           = 8
	interval          = 300 * time.Millisecond // between the operations of a worker: 27 a second in all
	activeUsers       = 20                     // users that a worker uses, the newest ones
	concurrentRefresh = 10                     // one refresh in so many is sent twice at the same time
	password          = "correct horse battery staple"
	loginPath         = "/api/v1/auth/login"
)

// workload is a number of clients that use the API, whatever fails.
type workload struct {
	client    *client
	history   *history
	prefix    string // of request ids and addresses
	number    atomic.Int64
	running   sync.WaitGroup
	stop      context.CancelFunc
	operating sync.RWMutex // held for reading during an operation
}

// pause lets the operations in flight end and starts no other until resume is called.
func (w *workload) pause() (resume func()) {
	w.operating.Lock()
	return w.operating.Unlock
}

func newWorkload(c *client, h *history, seed uint64) *workload {
	return &workload{client: c, history: h, prefix: fmt.Sprintf("chaos-%d", seed), stop: func() {}}
}

func (w *workload) start(ctx context.Context, seed uint64) {
	ctx, w.stop = context.WithCancel(ctx)
	for n := range uint64(workers) {
		one := &worker{workload: w, random: rand.New(rand.NewPCG(seed, n))}
		w.running.Go(func() { one.run(ctx) })
	}
}

// end waits until the operations in flight have ended.
func (w *workload) end() {
	w.stop()
	w.running.Wait()
}

// user is a user of a worker.
type user struct {
	email  string
	tokens tokens // empty if the user has to sign in
}

type worker struct {
	*workload
	random *rand.Rand
	users  []*user
}

func (w *worker) run(ctx context.Context) {
	// Workers start at different times and skip ticks while they wait for a response, so
	// the rate is never exceeded.
	if pause(ctx, time.Duration(w.random.Int64N(int64(interval)))) != nil {
		return
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			// An operation that has started is finished: cancelling it would make its
			// outcome unknown.
			w.operating.RLock()
			w.act(context.WithoutCancel(ctx))
			w.operating.RUnlock()
		}
	}
}

func (w *worker) act(ctx context.Context) {
	dice := w.random.IntN(100)
	if dice < 20 || len(w.users) == 0 {
		w.signup(ctx)
		return
	}
	u := w.users[w.random.IntN(len(w.users))]
	switch {
	case dice < 40 || u.tokens.Refresh == "":
		w.login(ctx, u)
	case dice < 70:
		w.refresh(ctx, u)
	case dice < 90:
		w.touch(ctx, u, patch)
	default:
		w.touch(ctx, u, read)
	}
}

// begin returns a new operation, for finish.
func (w *workload) begin(kind, email string) operation {
	return operation{
		ID: fmt.Sprintf("%s-%06d", w.prefix, w.number.Add(1)), Kind: kind, Email: email,
		Start: time.Now(), Phase: w.history.current(),
	}
}

func (w *workload) finish(o operation, a answer) outcome {
	o.End, o.Status, o.Detail = time.Now(), a.status, a.detail()
	o.Outcome = a.outcome(o.Kind)
	if o.Kind == refresh && o.Outcome == ok {
		o.Gained = digest(a.Data.Tokens.Refresh)
	}
	if o.Kind == read {
		o.Bio = a.Data.Bio
	}
	w.history.add(o)
	return o.Outcome
}

func (w *worker) signup(ctx context.Context) {
	email := fmt.Sprintf("user-%d-%d@example.com", w.number.Add(1), w.random.Uint32())
	if got, end := w.finishSignUp(ctx, w.begin(signup, email)); end == ok {
		w.users = append(w.users, &user{email: email, tokens: got})
		w.users = w.users[max(0, len(w.users)-activeUsers):]
	}
}

// signUpWithoutMail signs up an address that no mail can reach.
func (w *workload) signUpWithoutMail(ctx context.Context, email string) (tokens, outcome) {
	o := w.begin(signup, email)
	o.Injected = true
	return w.finishSignUp(ctx, o)
}

// signUpMore signs up a few users besides those of the load.
func (w *workload) signUpMore(ctx context.Context) {
	for range 3 {
		email := fmt.Sprintf("user-%d-more@example.com", w.number.Add(1))
		w.finishSignUp(ctx, w.begin(signup, email))
	}
}

func (w *workload) finishSignUp(ctx context.Context, o operation) (tokens, outcome) {
	a := w.client.call(ctx, request{
		id: o.ID, method: http.MethodPost, path: "/api/v1/auth/signup", body: object{"email": o.Email, "password": password, "name": "Ada"},
	})
	return a.Data.Tokens, w.finish(o, a)
}

func (w *worker) login(ctx context.Context, u *user) {
	o := w.begin(login, u.email)
	a := w.client.call(ctx, request{id: o.ID, method: http.MethodPost, path: loginPath, body: object{"email": u.email, "password": password}})
	if w.finish(o, a) == ok {
		u.tokens = a.Data.Tokens
	}
}

// refresh exchanges the token, sometimes with two concurrent requests. Unless both succeed,
// the user signs in again, because the token may be used up.
func (w *worker) refresh(ctx context.Context, u *user) {
	spent := u.tokens
	u.tokens = tokens{}
	exchange := func() (tokens, outcome) {
		o := w.begin(refresh, u.email)
		o.Spent = digest(spent.Refresh)
		a := w.client.call(ctx, request{id: o.ID, method: http.MethodPost, path: "/api/v1/auth/refresh", body: object{"refreshToken": spent.Refresh}})
		return a.Data.Tokens, w.finish(o, a)
	}
	twin := ok
	var both sync.WaitGroup
	if w.random.IntN(concurrentRefresh) == 0 {
		both.Go(func() { _, twin = exchange() })
	}
	gained, end := exchange()
	both.Wait()
	if end == ok && twin == ok {
		u.tokens = gained
	}
}

// touch reads or changes the user's own profile.
func (w *worker) touch(ctx context.Context, u *user, kind string) {
	o := w.begin(kind, u.email)
	method, body := http.MethodGet, object(nil)
	if kind == patch {
		method, body = http.MethodPatch, object{"bio": o.ID}
	}
	a := w.client.call(ctx, request{id: o.ID, method: method, path: "/api/v1/user/me", bearer: u.tokens.Access, body: body})
	w.finish(o, a)
	if a.status == http.StatusUnauthorized {
		u.tokens = tokens{}
	}
}
