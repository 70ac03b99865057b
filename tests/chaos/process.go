package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/localserver/child"
)

// process is one instance of a service. Its methods may be called concurrently.
type process struct {
	name, service string
	binary, dir   string
	env           []string
	ready         string // URL
	log           *os.File
	clock         *clock

	mu      sync.Mutex
	current *child.Process
	killed  bool // by the run
}

const readyTimeout = 60 * time.Second

// start starts the process and returns without waiting until it is ready.
func (p *process) start() error {
	cmd := exec.Command(p.binary)
	cmd.Dir, cmd.Env = p.dir, p.env
	cmd.Stdout, cmd.Stderr = p.log, p.log
	started, err := child.Start(cmd, child.Signals{})
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current, p.killed = started, false
	return nil
}

// kill sends SIGKILL and waits until the process has ended.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == nil {
		return
	}
	p.killed = true
	p.current.Kill()
}

func (p *process) signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.current.Signal(sig); err != nil {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

// crash returns how the process ended, or nothing if it runs or was killed by the run.
func (p *process) crash() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.current.Done():
		if !p.killed {
			return p.name + " ended by itself: " + p.current.Reason()
		}
	default:
	}
	return ""
}

// await waits until the process is ready.
func (p *process) await(ctx context.Context) error {
	return eventually(ctx, readyTimeout, p.name+" is ready", func() (bool, error) {
		if crash := p.crash(); crash != "" {
			return false, fmt.Errorf("%s, see %s", crash, p.log.Name())
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.ready, http.NoBody)
		if err != nil {
			return false, err
		}
		probe := http.Client{Timeout: 2 * time.Second}
		res, err := probe.Do(req)
		if err != nil {
			return false, nil //nolint:nilerr // The process does not listen yet.
		}
		return res.StatusCode == http.StatusOK, res.Body.Close()
	})
}

// errTimeout says that a condition was not met in time.
var errTimeout = errors.New("timeout")

// eventually waits until the condition is true. It fails with the error of the condition, or
// with errTimeout.
func eventually(ctx context.Context, limit time.Duration, what string, condition func() (bool, error)) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := condition()
		if err != nil {
			return fmt.Errorf("wait until %s: %w", what, err)
		}
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return fmt.Errorf("wait until %s: %w (%s)", what, errTimeout, limit)
		case <-tick.C:
		}
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// server is a Postgres or Redis that can be stopped and started again with its data, on the
// same port.
type server struct {
	name   string
	launch func(context.Context, localserver.Options) (*localserver.Server, error)
	opts   localserver.Options
	log    *os.File
	url    string
	small  bool // on a file system of its own, see limitDisk

	current  *localserver.Server
	restarts []time.Time
}

func newServer(dir, name string, launch func(context.Context, localserver.Options) (*localserver.Server, error)) (*server, error) {
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, fmt.Errorf("make log of %s: %w", name, err)
	}
	return &server{
		name: name, launch: launch, log: log,
		opts: localserver.Options{Dir: filepath.Join(dir, name), Durable: true, Log: log, Output: log},
	}, nil
}

// start starts the server and returns when it answers.
func (s *server) start(ctx context.Context) error {
	started, err := s.launch(ctx, s.opts)
	if err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	if s.current != nil {
		s.restarts = append(s.restarts, time.Now())
	}
	s.current, s.url, s.opts.Port = started, started.URL, started.Port
	return nil
}

// end sends sig and waits until the server has ended.
func (s *server) end(ctx context.Context, sig syscall.Signal) error {
	if err := s.current.Signal(sig); err != nil {
		return fmt.Errorf("end %s: %w", s.name, err)
	}
	select {
	case <-s.current.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *server) signal(sig syscall.Signal) error {
	if err := s.current.Signal(sig); err != nil {
		return fmt.Errorf("signal %s: %w", s.name, err)
	}
	return nil
}

// close ends the server and deletes its data.
func (s *server) close(sig syscall.Signal) error {
	if s.current != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = s.current.Signal(syscall.SIGCONT) // The server may have ended already.
		if err := s.current.Signal(sig); err == nil {
			select {
			case <-s.current.Done():
			case <-ctx.Done():
				s.current.Kill()
			}
		}
	}
	return errors.Join(s.freeDisk(), localserver.Clean(context.Background(), s.opts.Dir), os.RemoveAll(s.opts.Dir), os.RemoveAll(s.fileCopy()), s.log.Close())
}
