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
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/tests/internal/workspace"
)

const benchPassword = "violet-harbor-42-lamp"

// process is a program that serves HTTP and has its own database.
type process struct {
	url      string // of its listener
	database string // URL
	pid      int
	stop     func()
}

// processes are stopped in reverse order.
type processes []process

func (p processes) stop() {
	for _, one := range slices.Backward(p) {
		one.stop()
	}
}

// build builds a package of the workspace and returns the path of its binary.
func (b *bench) build(ctx context.Context, dir string) (string, error) {
	root, err := workspace.Root()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(b.dir, filepath.Base(dir))
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, "./"+dir)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", dir, err, out)
	}
	return binary, nil
}

// startService runs a service on a new database.
func (b *bench) startService(ctx context.Context, name, database string, settings ...string) (process, error) {
	binary, err := b.build(ctx, "services/"+name)
	if err != nil {
		return process{}, err
	}
	db, url, err := b.database(ctx, database)
	if err != nil {
		return process{}, err
	}
	db.Close()
	ops, err := localserver.FreePort(ctx)
	if err != nil {
		return process{}, fmt.Errorf("find a port: %w", err)
	}
	settings = append(settings, "ENV=development", "LOG_LEVEL=warn", "DRAIN_DELAY=0s", "NETWORK_MAIL_LIMIT=0", "LOCAL_DIR="+b.dir, "DATABASE_URL="+url, "REDIS_URL="+b.redisURL,
		fmt.Sprintf("OPS_ADDR=127.0.0.1:%d", ops))
	p, err := b.start(ctx, fmt.Sprintf("http://127.0.0.1:%d/readyz", ops), func(addr string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, binary)
		cmd.Env = append(append(os.Environ(), settings...), "HTTP_ADDR="+addr)
		return cmd
	})
	p.database = url
	return p, err
}

// startPlain runs the program that auth-service is compared with, on the tables of
// auth-service.
func (b *bench) startPlain(ctx context.Context) (process, error) {
	binary, err := b.build(ctx, "tests/bench/plain")
	if err != nil {
		return process{}, err
	}
	migrated, err := b.startService(ctx, "auth-service", "bench_plain", "PUBLIC_BASE_URL=http://localhost")
	if err != nil {
		return process{}, err
	}
	migrated.stop()
	return b.start(ctx, "", func(addr string) *exec.Cmd {
		return exec.CommandContext(ctx, binary, "-addr", addr, "-database", migrated.database)
	})
}

// start runs a program and waits until the URL ready answers, or the program's own address
// if ready is empty.
func (b *bench) start(ctx context.Context, ready string, command func(addr string) *exec.Cmd) (process, error) {
	port, err := localserver.FreePort(ctx)
	if err != nil {
		return process{}, fmt.Errorf("find a port: %w", err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	cmd := command(addr)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return process{}, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	var outcome error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		outcome = cmd.Wait()
	}()
	p := process{url: "http://" + addr, pid: cmd.Process.Pid, stop: func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // If the process has ended, ended is closed.
		<-ended
	}}
	if ready == "" {
		ready = p.url
	}
	err = await(ctx, func() (bool, error) {
		select {
		case <-ended:
			return false, errors.Join(fmt.Errorf("%s ended", cmd.Path), outcome)
		default:
		}
		res, err := http.Get(ready)
		if err != nil {
			return false, nil //nolint:nilerr // The program does not listen yet.
		}
		res.Body.Close()
		return res.StatusCode != http.StatusServiceUnavailable, nil
	})
	if err != nil {
		p.stop()
	}
	return p, err
}

// client signs up, signs in and refreshes tokens.
type client struct {
	auth, user string // URLs
	http       *http.Client
}

func newClient(auth, user string) *client {
	return &client{auth: auth, user: user, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2 * waiting}}}
}

type account struct {
	email           string
	access, refresh string
}

func (c *client) post(ctx context.Context, path string, body any, a *account) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.auth+"/api/v1/auth"+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	var out struct {
		Data struct {
			Tokens struct{ AccessToken, RefreshToken string }
		}
	}
	if err := c.send(req, &out); err != nil {
		return err
	}
	a.access, a.refresh = out.Data.Tokens.AccessToken, out.Data.Tokens.RefreshToken
	return nil
}

func (c *client) send(req *http.Request, out any) error {
	res, err := c.http.Do(req)
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

var signedUp atomic.Int64

// signUp creates a new account.
func (c *client) signUp(ctx context.Context, a *account) error {
	a.email = fmt.Sprintf("somebody-%d@example.com", signedUp.Add(1))
	return c.post(ctx, "/signup", map[string]string{"email": a.email, "password": benchPassword, "name": "Ada"}, a)
}

func (c *client) accounts(ctx context.Context, n int) ([]*account, error) {
	all := make([]*account, n)
	for i := range all {
		all[i] = &account{}
		if err := c.signUp(ctx, all[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (c *client) login(ctx context.Context, a *account) error {
	return c.post(ctx, "/login", map[string]string{"email": a.email, "password": benchPassword}, a)
}

// confirm confirms the password of a signed-in account.
func (c *client) confirm(ctx context.Context, a *account) error {
	data, err := json.Marshal(map[string]string{"password": benchPassword})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.auth+"/api/v1/auth/reauthenticate", bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+a.access)
	return c.send(req, nil)
}

func (c *client) refresh(ctx context.Context, a *account) error {
	return c.post(ctx, "/refresh", map[string]string{"refreshToken": a.refresh}, a)
}

func (c *client) me(ctx context.Context, a *account) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.user+"/api/v1/user/me", http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+a.access)
	return c.send(req, nil)
}

// rate returns the calls a second of do, if each account makes one call after the other.
func rate(ctx context.Context, accounts []*account, do func(context.Context, *account) error) (float64, error) {
	const lasts = 4 * time.Second
	var done atomic.Int64
	errs := make(chan error, len(accounts))
	started := time.Now()
	for _, a := range accounts {
		go func() {
			for time.Since(started) < lasts {
				if err := do(ctx, a); err != nil {
					errs <- err
					return
				}
				done.Add(1)
			}
			errs <- nil
		}()
	}
	var all error
	for range accounts {
		all = errors.Join(all, <-errs)
	}
	return float64(done.Load()) / time.Since(started).Seconds(), all
}
