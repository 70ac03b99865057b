package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/localserver/child"
)

// The services, which are also the names of their consumer groups.
const (
	gateway      = "gateway"
	authService  = "auth-service"
	userService  = "user-service"
	emailService = "email-service"
	auditService = "audit-service"
)

// instances is the number of processes of each service. The gateway calls the first one;
// the others relay and consume events.
var instances = []struct {
	service, database string
	count             int
}{
	{authService, "auth", 3},
	{userService, "user", 1},
	{emailService, "email", 1},
	{auditService, "audit", 3},
	{gateway, "", 1},
}

// streamRetention is short, so that a run sees streams being trimmed.
const streamRetention = 20 * time.Second

// stack is all processes and servers of a run.
type stack struct {
	dir, root string
	redis     *server
	databases map[string]*server
	links     map[string]*link // between a service and Redis
	smtp      *sink
	processes []*process
	gateway   string // URL
	deployed  *deployedRedis
	needs     needs
}

// newStack starts everything. If it fails, everything that it started has ended.
func newStack(ctx context.Context, root, dir string, n needs) (_ *stack, err error) {
	s := &stack{
		root: root, dir: dir, databases: map[string]*server{}, links: map[string]*link{},
		deployed: newDeployedRedis(root), needs: n,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.smtp, err = newSink(ctx); err != nil {
		return nil, err
	}
	if err := s.startServers(ctx); err != nil {
		return nil, err
	}
	if err := s.startLinks(ctx); err != nil {
		return nil, err
	}
	if err := s.planServices(ctx); err != nil {
		return nil, err
	}
	return s, s.startServices(ctx, s.processes)
}

// startServers starts Redis and a Postgres for each service, and at the same time builds
// the services.
func (s *stack) startServers(ctx context.Context) (err error) {
	if s.redis, err = newServer(s.dir, "redis", s.deployed.launch); err != nil {
		return err
	}
	all := []*server{s.redis}
	for _, i := range instances {
		if i.database == "" {
			continue
		}
		db, err := newServer(s.dir, "postgres-"+i.database, localserver.StartPostgres)
		if err != nil {
			return err
		}
		if s.needs.smallDisks && slices.Contains(smallDisks, i.database) {
			if err := db.limitDisk(); err != nil {
				return err
			}
		}
		s.databases[i.database] = db
		all = append(all, db)
	}
	work := []func() error{func() error { return s.build(ctx) }}
	for _, one := range all {
		work = append(work, func() error { return one.start(ctx) })
	}
	if err := together(work...); err != nil {
		return err
	}
	return s.prepareDatabases(ctx)
}

// together calls the functions concurrently and joins their errors.
func together(work ...func() error) error {
	errs := make([]error, len(work))
	var wg sync.WaitGroup
	for i, f := range work {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *stack) build(ctx context.Context) error {
	args := []string{"build", "-o", filepath.Join(s.dir, "bin") + string(filepath.Separator)}
	if s.needs.clocks {
		overlay, err := writeOverlay(s.dir, s.root)
		if err != nil {
			return err
		}
		args = append(args, "-overlay", overlay)
	}
	for _, i := range instances {
		args = append(args, "./services/"+i.service)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = s.root
	cmd.Env = append(os.Environ(), "GOWORK="+filepath.Join(s.root, "go.work"))
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	process, err := child.Start(cmd, child.Signals{})
	if err != nil {
		return fmt.Errorf("build the services: %w", err)
	}
	select {
	case <-process.Done():
	case <-ctx.Done():
		process.Kill()
		return ctx.Err()
	}
	if err := process.Err(); err != nil {
		return fmt.Errorf("build the services: %w\n%s", err, output.String())
	}
	return nil
}

func (s *stack) startLinks(ctx context.Context) error {
	for _, i := range instances {
		port, err := localserver.FreePort(ctx)
		if err != nil {
			return fmt.Errorf("link %s to redis: %w", i.service, err)
		}
		made, err := newLink(i.service, loopback(port), loopback(s.redis.opts.Port))
		if err != nil {
			return err
		}
		s.links[i.service] = made
	}
	return nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// planServices chooses the port and the environment of each process.
func (s *stack) planServices(ctx context.Context) error {
	taken := map[int]bool{}
	free := func() (string, error) {
		for {
			port, err := localserver.FreePort(ctx)
			if err != nil {
				return "", fmt.Errorf("plan the services: %w", err)
			}
			if !taken[port] {
				taken[port] = true
				return loopback(port), nil
			}
		}
	}
	first := map[string]string{}
	for _, i := range instances {
		for n := 1; n <= i.count; n++ {
			public, err1 := free()
			ops, err2 := free()
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			if n == 1 {
				first[i.service] = public
			}
			name := i.service + "-" + strconv.Itoa(n)
			log, err := os.Create(filepath.Join(s.dir, name+".log"))
			if err != nil {
				return fmt.Errorf("make log of %s: %w", name, err)
			}
			clock, err := newClock(s.dir, name)
			if err != nil {
				return err
			}
			s.processes = append(s.processes, &process{
				name: name, clock: clock, service: i.service, binary: filepath.Join(s.dir, "bin", i.service), dir: s.dir,
				ready: "http://" + ops + "/readyz", log: log,
				env: []string{"INSTANCE_ID=" + name, "HTTP_ADDR=" + public, "OPS_ADDR=" + ops, clockVariable + "=" + clock.file},
			})
		}
	}
	s.gateway = "http://" + first[gateway]
	for _, p := range s.processes {
		p.env = append(p.env, s.environment(p.service, first)...)
	}
	return nil
}

// environment returns the variables that all processes of a service share.
func (s *stack) environment(service string, first map[string]string) []string {
	env := map[string]string{
		"HOME": s.dir, "ENV": "development", "LOG_FORMAT": "json",
		"LOCAL_DIR": s.dir, "SHUTDOWN_TIMEOUT": "5s", "DRAIN_DELAY": "0s",
		"REDIS_URL":       s.deployed.config.URLAt(service, s.links[service].listen),
		"JWKS_URL":        "http://" + first[authService] + "/.well-known/jwks.json",
		"PUBLIC_BASE_URL": s.gateway, "MAIL_FROM": "Headgate <no-reply@headgate.local>", "SMTP_URL": s.smtp.url(),
		"AUTH_URL": "http://" + first[authService], "USER_URL": "http://" + first[userService],
		"EMAIL_URL": "http://" + first[emailService], "AUDIT_URL": "http://" + first[auditService],
		"RECONCILE_INTERVAL": "2s", "MAIL_RETRY_FIRST": "2s",
		"STREAM_RETENTION": streamRetention.String(),
	}
	for _, limit := range []string{"LOGIN", "LOGIN_IP", "REFRESH", "REFRESH_IP", "SIGNUP", "MAIL", "LINKS", "MFA", "PASSKEYS", "GENERAL", "GENERAL_IP"} {
		env[limit+"_RATE_LIMIT"] = "100000/1m"
	}
	env["NETWORK_MAIL_LIMIT"] = "0"
	for _, i := range instances {
		if i.service == service && i.database != "" {
			env["DATABASE_URL"] = s.databases[i.database].url
		}
	}
	if service == authService {
		delete(env, "JWKS_URL")
	}
	list := make([]string, 0, len(env))
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	return list
}

// startServices starts the processes and waits until all are ready.
func (s *stack) startServices(ctx context.Context, processes []*process) error {
	work := make([]func() error, len(processes))
	for i, p := range processes {
		work[i] = func() error {
			if err := p.start(); err != nil {
				return err
			}
			return p.await(ctx)
		}
	}
	return together(work...)
}

// of returns the processes of the services.
func (s *stack) of(services ...string) []*process {
	var found []*process
	for _, service := range services {
		for _, p := range s.processes {
			if p.service == service {
				found = append(found, p)
			}
		}
	}
	return found
}

// ready restarts the processes that crashed and waits until all are ready. It returns how
// they crashed.
func (s *stack) ready(ctx context.Context) (crashes []string, err error) {
	for _, p := range s.processes {
		if crash := p.crash(); crash != "" {
			crashes = append(crashes, crash)
			if err := p.start(); err != nil {
				return crashes, err
			}
		}
	}
	for _, p := range s.processes {
		if err := p.await(ctx); err != nil {
			return crashes, err
		}
	}
	return crashes, nil
}

// close ends everything and deletes the data, but not the logs.
func (s *stack) close() error {
	var errs []error
	for _, p := range s.processes {
		p.kill()
		errs = append(errs, p.log.Close())
	}
	for _, l := range s.links {
		l.close()
	}
	work := []func() error{}
	if s.redis != nil {
		work = append(work, func() error { return s.redis.close(syscall.SIGTERM) })
	}
	for _, db := range s.databases {
		work = append(work, func() error { return db.close(syscall.SIGQUIT) })
	}
	if s.smtp != nil {
		work = append(work, s.smtp.close)
	}
	errs = append(errs, together(work...))
	for _, folder := range []string{"bin", "secrets", clocksFolder, overlayFolder} {
		errs = append(errs, os.RemoveAll(filepath.Join(s.dir, folder)))
	}
	return errors.Join(errs...)
}
