// Package stack runs all of Headgate on one machine without containers: real
// Postgres and Redis, a mailbox, and the five services as processes.
package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/joho/godotenv"

	"github.com/headgate/headgate/deploy/local/internal/console"
	"github.com/headgate/headgate/deploy/local/internal/mailbox"
	"github.com/headgate/headgate/deploy/local/internal/supervisor"
)

const (
	launcher    = "headgate"
	stopTimeout = 30 * time.Second
	adminEmail  = "admin@headgate.local"
)

type stack struct {
	cfg      Config
	caller   environment
	dotenv   map[string]string
	terminal bool
	console  *console.Console
	log      *console.Program
	facts    *factsFile

	mu       sync.Mutex
	servers  *supervisor.Supervisor // Postgres and Redis
	services *supervisor.Supervisor
}

// Up runs the stack until ctx ends, then stops it gracefully, or by force when force ends as
// well. It returns nil after such a stop. When it returns, no process is left.
func Up(ctx, force context.Context, cfg Config) (err error) {
	lock, err := acquire(cfg.Dir)
	if err != nil {
		return err
	}
	defer lock.Close() // Closing releases the lock.
	s, err := newStack(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.facts.withdraw(), s.console.Close()) }()
	if err := s.facts.withdraw(); err != nil {
		return err
	}
	web, mail, err := mailboxListeners(ctx)
	if err != nil {
		return err
	}
	running, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	// The mailbox outlives the services, which may still be sending.
	serve, closeMailbox := context.WithCancel(context.WithoutCancel(ctx))
	defer closeMailbox()
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := mailbox.New().Serve(serve, mail, web); err != nil {
			fail(err)
		}
	})
	err = s.run(running, mail.Addr().String(), web.Addr().String())
	if cause := context.Cause(running); ctx.Err() == nil && cause != nil {
		err = cause
	}
	if ctx.Err() != nil {
		err = nil // An error after the end of ctx is a consequence of the stop.
	}
	s.stop(force)
	closeMailbox()
	serving.Wait()
	if err == nil {
		s.logf("stopped")
	}
	return err
}

func newStack(cfg Config) (*stack, error) {
	names := []string{launcher}
	for _, svc := range services {
		names = append(names, svc.name)
	}
	s := &stack{cfg: cfg, caller: parseEnvironment(cfg.Environ), terminal: console.Terminal(cfg.Out)}
	var err error
	if s.dotenv, err = godotenv.Read(filepath.Join(cfg.Root, ".env")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read .env: %w", err)
	}
	s.console = console.New(cfg.Out, filepath.Join(cfg.Dir, "logs"), names...)
	if s.terminal && s.caller["NO_COLOR"] == "" && s.caller["TERM"] != "dumb" {
		s.console.Colour()
	}
	if s.log, err = s.console.Program(launcher); err != nil {
		return nil, err
	}
	s.facts = &factsFile{path: filepath.Join(cfg.Dir, factsName), pids: s.pids}
	return s, nil
}

func mailboxListeners(ctx context.Context) (web, mail net.Listener, err error) {
	if web, err = listen(ctx, defaultWebPort); err != nil {
		return nil, nil, fmt.Errorf("listen for the mailbox: %w", err)
	}
	if mail, err = listen(ctx, defaultSMTPPort); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("listen for mail: %w", err), web.Close())
	}
	return web, mail, nil
}

// run starts everything. It returns when ctx ends or when a part does not start.
func (s *stack) run(ctx context.Context, smtpAddr, webAddr string) error {
	p := plan{smtp: "smtp://" + smtpAddr, listen: map[string]addresses{}}
	if own := s.caller["SMTP_URL"]; own != "" {
		p.smtp = own
	}
	var err error
	if p.admin, err = s.admin(); err != nil {
		return err
	}
	port, moved, err := gatewayPort(ctx, s.setting("GATEWAY_PORT"))
	if err != nil {
		return err
	}
	if moved {
		s.logf("port %d is taken: the gateway listens on %d", defaultGateway, port)
	}
	p.public = "http://" + net.JoinHostPort(reachable(s.gatewayHost()), strconv.Itoa(port))

	bin, err := s.prepare(ctx, &p)
	if err != nil {
		return err
	}
	if err := s.startServices(ctx, bin, port, p); err != nil {
		return err
	}
	facts := Facts{
		GatewayURL: p.public, MailboxURL: "http://" + webAddr, Admin: p.admin,
		ServiceURLs: p.serviceURLs(), DatabaseURLs: p.databases, RedisURL: p.redis, SMTPURL: p.smtp,
	}
	if err := s.facts.publish(facts); err != nil {
		return err
	}
	s.console.Print(summary(facts, s.cfg.Dir))
	<-ctx.Done()
	s.logf("stopping")
	return s.facts.withdraw()
}

// prepare builds the services and at the same time starts Postgres and Redis. It returns the
// folder with the binaries.
func (s *stack) prepare(ctx context.Context, p *plan) (string, error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var both sync.WaitGroup
	var bin string
	both.Go(func() {
		var err error
		if bin, err = s.build(ctx); err != nil {
			fail(err)
		}
	})
	both.Go(func() {
		if err := s.startServers(ctx, p); err != nil {
			fail(err)
		}
	})
	both.Wait()
	// The first failure has cancelled the other part.
	return bin, context.Cause(ctx)
}

func (s *stack) admin() (Admin, error) {
	a := Admin{Email: s.setting("ADMIN_EMAIL"), Password: s.setting("ADMIN_PASSWORD")}
	if a.Email == "" {
		a.Email = adminEmail
	}
	var err error
	if a.Password == "" {
		a.Password, err = s.secret("ADMIN_PASSWORD")
	}
	return a, err
}

// stop stops the services, then Postgres and Redis.
func (s *stack) stop(force context.Context) {
	s.mu.Lock()
	services, servers := s.services, s.servers
	s.mu.Unlock()
	for _, group := range []*supervisor.Supervisor{services, servers} {
		if group == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(force, stopTimeout)
		group.Stop(ctx)
		cancel()
	}
}

func (s *stack) pids() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	pids := map[string]int{}
	for _, group := range []*supervisor.Supervisor{s.services, s.servers} {
		if group == nil {
			continue
		}
		maps.Copy(pids, group.Pids())
	}
	return pids
}

func (s *stack) logf(format string, args ...any) {
	fmt.Fprintf(s.log, format+"\n", args...)
}

// changed is called for each new process id.
func (s *stack) changed() {
	if err := s.facts.refresh(); err != nil {
		s.logf("%v", err)
	}
}
