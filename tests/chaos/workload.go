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
	workers   = 8
	interval  = 300 * time.Millisecond // between the operations of a worker: 27 a second in all
	crowd     = 20                     // the newest users of a worker that it still uses
	twins     = 10                     // one refresh in so many is sent twice at once
	password  = "correct horse battery staple"
	loginPath = "/api/v1/auth/login"
)

// workload is a number of clients that go about their business whatever happens.
type workload struct {
	client  *client
	history *history
	prefix  string // of request ids and addresses
	number  atomic.Int64
	running sync.WaitGroup
	stop    context.CancelFunc
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

// end lets the operations under way end and returns when all have.
func (w *workload) end() {
	w.stop()
	w.running.Wait()
}

// user is one of a worker's own.
type user struct {
	email  string
	tokens tokens // empty while it has to sign in
}

type worker struct {
	*workload
	random *rand.Rand
	users  []*user
}

func (w *worker) run(ctx context.Context) {
	// Workers begin at different moments and drop ticks while an answer is
	// outstanding, so the rate is never exceeded.
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
			// What has begun is finished: an operation cut off by our own end
			// would tell nothing.
			w.act(context.WithoutCancel(ctx))
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

// begin returns an entry of the history that is to be ended.
func (w *workload) begin(kind, email string) operation {
	return operation{
		ID: fmt.Sprintf("%s-%06d", w.prefix, w.number.Add(1)), Kind: kind, Email: email,
		Start: time.Now(), Phase: w.history.current(),
	}
}

func (w *workload) finish(o operation, a answer) outcome {
	o.End, o.Status, o.Detail = time.Now(), a.status, a.detail()
	o.Outcome = a.outcome(o.Kind != read)
	if o.Kind == refresh && o.Outcome == ok {
		o.Gained = digest(a.Data.Tokens.Refresh)
	}
	w.history.add(o)
	return o.Outcome
}

func (w *worker) signup(ctx context.Context) {
	email := fmt.Sprintf("user-%d-%d@example.com", w.number.Add(1), w.random.Uint32())
	if got, end := w.enrol(ctx, email, false); end == ok {
		w.users = append(w.users, &user{email: email, tokens: got})
		w.users = w.users[max(0, len(w.users)-crowd):]
	}
}

// enrol signs somebody up. Injected says that no mail can reach the address.
func (w *workload) enrol(ctx context.Context, email string, injected bool) (tokens, outcome) {
	o := w.begin(signup, email)
	o.Injected = injected
	a := w.client.call(ctx, o.ID, http.MethodPost, "/api/v1/auth/signup", "", object{"email": email, "password": password, "name": "Ada"})
	return a.Data.Tokens, w.finish(o, a)
}

func (w *worker) login(ctx context.Context, u *user) {
	o := w.begin(login, u.email)
	a := w.client.call(ctx, o.ID, http.MethodPost, loginPath, "", object{"email": u.email, "password": password})
	if w.finish(o, a) == ok {
		u.tokens = a.Data.Tokens
	}
}

// refresh exchanges the token, sometimes by two requests at once. Unless both
// are answered well the user signs in anew: who knows whether the token is spent.
func (w *worker) refresh(ctx context.Context, u *user) {
	spent := u.tokens
	u.tokens = tokens{}
	exchange := func() (tokens, outcome) {
		o := w.begin(refresh, u.email)
		o.Spent = digest(spent.Refresh)
		a := w.client.call(ctx, o.ID, http.MethodPost, "/api/v1/auth/refresh", "", object{"refreshToken": spent.Refresh})
		return a.Data.Tokens, w.finish(o, a)
	}
	twin := ok
	var both sync.WaitGroup
	if w.random.IntN(twins) == 0 {
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
	a := w.client.call(ctx, o.ID, method, "/api/v1/user/me", u.tokens.Access, body)
	w.finish(o, a)
	if a.status == http.StatusUnauthorized {
		u.tokens = tokens{}
	}
}
