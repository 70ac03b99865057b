package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/headgate/headgate/pkg/testkit/localserver"
	"github.com/headgate/headgate/tests/internal/workspace"
)

const (
	benchPassword = "violet-harbor-42-lamp"
	loginTime     = 5 * time.Second
	waiting       = 200 // logins at a time
)

// login compares auth-service's logins with what the machine could hash if it did
// nothing else, and shows what it does to everybody else when many wait.
func (b *bench) login(ctx context.Context) error {
	w, err := b.startAuth(ctx)
	if err != nil {
		return err
	}
	defer w.stop()
	users, err := w.signUp(ctx, waiting)
	if err != nil {
		return err
	}
	medians, err := b.alternate(ctx,
		variant{"hash", func(context.Context) (float64, error) { return hashRate(1), nil }},
		variant{"logins", func(ctx context.Context) (float64, error) { return w.logins(ctx, users[:4*runtime.NumCPU()]) }},
	)
	if err != nil {
		return err
	}
	limit := medians["hash"] * float64(runtime.NumCPU())
	b.report.add("login", fmt.Sprintf("Argon2id, cores ÷ time of one (%.1f ms)", 1000/medians["hash"]), perSecond(limit), "", "", "")
	b.report.ratio("login", "auth-service, logins / that", perSecond(medians["logins"]), medians["logins"]/limit, 0.9)

	for _, one := range []struct {
		name string
		ask  func(ctx context.Context, u *benchUser) error
	}{
		{"GET user/me", w.me},
		{"refresh", w.refresh},
	} {
		idle, err := w.p99(ctx, users[:8], one.ask)
		if err != nil {
			return err
		}
		busyCtx, stop := context.WithCancel(ctx)
		var crowd sync.WaitGroup
		for _, u := range users[8:] {
			crowd.Go(func() {
				for busyCtx.Err() == nil {
					_ = w.login(busyCtx, u) // Those that are refused because too many wait are part of it.
				}
			})
		}
		busy, err := w.p99(ctx, users[:8], one.ask)
		stop()
		crowd.Wait()
		if err != nil {
			return err
		}
		b.report.add("login", one.name+", p99, idle", idle.Round(10*time.Microsecond).String(), "", "", "")
		b.report.most("login", fmt.Sprintf("%s, p99, while %d logins wait / that", one.name, waiting-8), busy.Round(10*time.Microsecond).String(), busy.Seconds()/idle.Seconds(), 3)
	}
	return nil
}

// hashRate returns how many hashes a second n loops make.
func hashRate(n int) float64 {
	const each = 40
	started := time.Now()
	var loops sync.WaitGroup
	for range n {
		loops.Go(func() {
			for range each {
				argon2.IDKey([]byte(benchPassword), []byte("a salt of 16 b.."), 2, 19<<10, 1, 32)
			}
		})
	}
	loops.Wait()
	return float64(n*each) / time.Since(started).Seconds()
}

// world is auth-service and user-service, and a client.
type world struct {
	auth, user string
	client     *http.Client
	stops      []func()
}

type benchUser struct {
	email           string
	access, refresh string
}

func (b *bench) startAuth(ctx context.Context) (*world, error) {
	w := &world{client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2 * waiting}}}
	var err error
	if w.auth, err = b.startService(ctx, w, "auth-service", "PUBLIC_BASE_URL=http://localhost", "REFRESH_GRACE=0s"); err != nil {
		w.stop()
		return nil, err
	}
	if w.user, err = b.startService(ctx, w, "user-service", "JWKS_URL="+w.auth+"/.well-known/jwks.json"); err != nil {
		w.stop()
		return nil, err
	}
	return w, nil
}

func (w *world) stop() {
	for _, stop := range slices.Backward(w.stops) {
		stop()
	}
}

// startService runs a service on a database of its own until w stops.
func (b *bench) startService(ctx context.Context, w *world, name string, settings ...string) (string, error) {
	root, err := workspace.Root()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(b.dir, name)
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./services/"+name)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	db, url, err := b.database(ctx, "bench_"+strings.TrimSuffix(name, "-service"))
	if err != nil {
		return "", err
	}
	db.Close()
	var ports [2]int
	for i := range ports {
		if ports[i], err = localserver.FreePort(ctx); err != nil {
			return "", fmt.Errorf("find a port: %w", err)
		}
	}
	cmd := exec.CommandContext(ctx, binary)
	cmd.Env = append(os.Environ(), "ENV=development", "LOG_LEVEL=warn", "LOCAL_DIR="+b.dir, "DATABASE_URL="+url, "REDIS_URL="+b.redisURL,
		fmt.Sprintf("HTTP_ADDR=127.0.0.1:%d", ports[0]), fmt.Sprintf("OPS_ADDR=127.0.0.1:%d", ports[1]))
	cmd.Env = append(cmd.Env, settings...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start %s: %w", name, err)
	}
	w.stops = append(w.stops, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // If it has gone, Wait says so.
		_ = cmd.Wait()                          // Its end is no figure.
	})
	ready := fmt.Sprintf("http://127.0.0.1:%d/readyz", ports[1])
	err = await(ctx, func() (bool, error) {
		res, err := w.client.Get(ready)
		if err != nil {
			return false, nil //nolint:nilerr // It is not up yet.
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK, nil
	})
	return fmt.Sprintf("http://127.0.0.1:%d", ports[0]), err
}

type issued struct {
	Data struct {
		Tokens struct{ AccessToken, RefreshToken string }
	}
}

func (w *world) post(ctx context.Context, path string, body any, u *benchUser) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.auth+"/api/v1/auth"+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	var out issued
	if err := w.send(req, &out); err != nil {
		return err
	}
	u.access, u.refresh = out.Data.Tokens.AccessToken, out.Data.Tokens.RefreshToken
	return nil
}

func (w *world) send(req *http.Request, out any) error {
	res, err := w.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s = %s %s", req.Method, req.URL.Path, res.Status, data)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

func (w *world) signUp(ctx context.Context, n int) ([]*benchUser, error) {
	users := make([]*benchUser, n)
	for i := range users {
		users[i] = &benchUser{email: fmt.Sprintf("user-%d@example.com", i)}
		if err := w.post(ctx, "/signup", map[string]string{"email": users[i].email, "password": benchPassword, "name": "Ada"}, users[i]); err != nil {
			return nil, err
		}
	}
	return users, nil
}

func (w *world) login(ctx context.Context, u *benchUser) error {
	return w.post(ctx, "/login", map[string]string{"email": u.email, "password": benchPassword}, u)
}

func (w *world) refresh(ctx context.Context, u *benchUser) error {
	return w.post(ctx, "/refresh", map[string]string{"refreshToken": u.refresh}, u)
}

func (w *world) me(ctx context.Context, u *benchUser) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.user+"/api/v1/user/me", http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+u.access)
	return w.send(req, nil)
}

// logins returns how many a second users make, each one after the other.
func (w *world) logins(ctx context.Context, users []*benchUser) (float64, error) {
	var done atomic.Int64
	faults := make(chan error, len(users))
	started := time.Now()
	for _, u := range users {
		go func() {
			for time.Since(started) < loginTime {
				if err := w.login(ctx, u); err != nil {
					faults <- err
					return
				}
				done.Add(1)
			}
			faults <- nil
		}()
	}
	var all error
	for range users {
		all = errors.Join(all, <-faults)
	}
	return float64(done.Load()) / time.Since(started).Seconds(), all
}

// p99 returns the 99th percentile of what users ask for, each one after the
// other with a pause.
func (w *world) p99(ctx context.Context, users []*benchUser, ask func(context.Context, *benchUser) error) (time.Duration, error) {
	const each = 100
	times := make([][]time.Duration, len(users))
	faults := make([]error, len(users))
	var askers sync.WaitGroup
	for i, u := range users {
		askers.Go(func() {
			pause := time.NewTicker(20 * time.Millisecond)
			defer pause.Stop()
			for range each {
				<-pause.C
				started := time.Now()
				if faults[i] = ask(ctx, u); faults[i] != nil {
					return
				}
				times[i] = append(times[i], time.Since(started))
			}
		})
	}
	askers.Wait()
	all := slices.Concat(times...)
	if err := errors.Join(faults...); err != nil {
		return 0, err
	}
	slices.Sort(all)
	return all[len(all)*99/100], nil
}
