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

// Up runs the stack until ctx ends, then stops it gracefully, or by force when
// force ends too. No process is left when it returns. It returns nil if it was
// asked to stop.
func Up(ctx, force context.Context, cfg Config) (err error) {
	lock, err := acquire(cfg.Dir)
	if err != nil {
		return err
	}
	defer lock.Close() // Closing is what releases it.
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
	running, broken := context.WithCancelCause(ctx)
	defer broken(nil)
	// The mailbox outlives the services, which may still be sending.
	open, shut := context.WithCancel(context.WithoutCancel(ctx))
	defer shut()
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := mailbox.New().Serve(open, mail, web); err != nil {
			broken(err)
		}
	})
	err = s.run(running, mail.Addr().String(), web.Addr().String())
	if fault := context.Cause(running); ctx.Err() == nil && fault != nil {
		err = fault
	}
	if ctx.Err() != nil {
		err = nil // Whatever failed on the way, failed for being stopped.
	}
	s.stop(force)
	shut()
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

// run starts everything and returns when ctx ends or something does not start.
func (s *stack) run(ctx context.Context, smtpAddr, webAddr string) error {
	p := plan{smtp: "smtp://" + smtpAddr, listen: map[string]addresses{}}
	if own := s.caller["SMTP_URL"]; own != "" {
		p.smtp = own
	}
	var err error
	if p.admin, err = s.admin(); err != nil {
		return err
	}
	port, moved, err := gatewayPort(ctx, s.wish("GATEWAY_PORT"))
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

// prepare builds the services while Postgres and Redis start, and returns the
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
	// The one that failed stopped the other.
	return bin, context.Cause(ctx)
}

func (s *stack) admin() (Admin, error) {
	a := Admin{Email: s.wish("ADMIN_EMAIL"), Password: s.wish("ADMIN_PASSWORD")}
	if a.Email == "" {
		a.Email = adminEmail
	}
	var err error
	if a.Password == "" {
		a.Password, err = s.secret("ADMIN_PASSWORD")
	}
	return a, err
}

// stop ends the services, then what they depend on.
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

// changed is told of each new process id.
func (s *stack) changed() {
	if err := s.facts.refresh(); err != nil {
		s.logf("%v", err)
	}
}
