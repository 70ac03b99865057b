// Package localserver starts private Postgres and Redis servers on loopback, for
// development and tests, and installs missing programs. It must not know what is
// stored in the servers.
package localserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/headgate/headgate/pkg/localserver/child"
)

// ErrNotInstalled is returned if the server's program was not found. Install gets it.
var ErrNotInstalled = errors.New("not installed")

// Options configures a server. Only Dir is required.
type Options struct {
	// Dir is the folder of the server's data, created if it is missing. It must have
	// one owner at a time: a server that an owner left running by a crash is stopped.
	Dir string
	// Durable makes acknowledged writes survive crashes and requires a password of
	// clients. Otherwise the server is fast, and its data is deleted when it stops.
	Durable bool
	// Port is the port to listen on. 0 selects a free one.
	Port int
	// Bin is the folder to search for programs before all others.
	Bin string
	// Log receives a line for each unusual action.
	Log io.Writer
	// Output receives the server's output.
	Output io.Writer
}

func (o Options) log() io.Writer { return orDiscard(o.Log) }

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// Server is a running server. After Done, its owner may start another one with the
// same Dir and Port.
type Server struct {
	*child.Process

	// URL is the address for clients, with the credentials of the superuser.
	URL string
	// Port is the port that the server listens on.
	Port int

	discard string // the data to delete at Stop
}

// Stop stops the server gracefully, or kills it when ctx ends first. The server has
// ended when Stop returns.
func (s *Server) Stop(ctx context.Context) error {
	err := s.Process.Stop(ctx)
	if s.discard != "" {
		err = errors.Join(err, os.RemoveAll(s.discard))
	}
	return err
}

// startTimeout covers the recovery of a database that was killed.
const startTimeout = 60 * time.Second

// attempt is one start of a server on one port.
type attempt struct {
	process *child.Process
	output  *tail
	// probe succeeds when the server answers and is the one that was started, not
	// another process that took the port first.
	probe func(ctx context.Context) error
}

// errPortTaken is returned if another process listened on the port first.
var errPortTaken = errors.New("port is taken")

// start runs launch and waits until the server answers. It retries with another
// port if another process took the chosen one.
func start(ctx context.Context, name string, opts Options, launch func(ctx context.Context, port int) (attempt, error)) (*Server, error) {
	const tries = 4
	var err error
	for range tries {
		port := opts.Port
		if port == 0 {
			if port, err = FreePort(ctx); err != nil {
				return nil, err
			}
		}
		var a attempt
		if a, err = launch(ctx, port); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if err = a.ready(ctx); err == nil {
			return &Server{Process: a.process, Port: port}, nil
		}
		if opts.Port != 0 || !errors.Is(err, errPortTaken) {
			break
		}
	}
	return nil, fmt.Errorf("%s: %w", name, err)
}

// ready waits until the probe succeeds. If it returns an error, the process has
// ended.
func (a attempt) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := a.probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-a.process.Done():
			return a.ended()
		case <-ctx.Done():
			a.process.Kill()
			return fmt.Errorf("wait until ready: %w (last answer: %w)", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

func (a attempt) ended() error {
	output := a.output.String()
	err := fmt.Errorf("server ended at start with %s: %s", a.process.Reason(), output)
	if strings.Contains(output, "already in use") {
		return errors.Join(errPortTaken, err)
	}
	return err
}

// tail copies a program's output to next and keeps the end of it.
type tail struct {
	mu   sync.Mutex
	next io.Writer
	kept []byte
}

const tailSize = 2 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, b...)
	if extra := len(t.kept) - tailSize; extra > 0 {
		t.kept = t.kept[extra:]
	}
	return t.next.Write(b)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.kept))
}

// password returns the password in the file. It generates one if there is none.
func password(file string) (string, error) {
	data, err := os.ReadFile(file) //nolint:gosec // The path is made from Options.Dir.
	if err == nil && len(bytes.TrimSpace(data)) > 0 {
		return string(bytes.TrimSpace(data)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read password: %w", err)
	}
	generated := rand.Text()
	if err := writeAtomically(file, generated+"\n"); err != nil {
		return "", fmt.Errorf("write password: %w", err)
	}
	return generated, nil
}

// writeAtomically writes a file that only its owner can read.
func writeAtomically(file, content string) error {
	draft, err := os.CreateTemp(filepath.Dir(file), ".draft-*")
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name()) // It no longer exists after the rename.
	_, err = draft.WriteString(content)
	if err = errors.Join(err, draft.Close()); err != nil {
		return err
	}
	return os.Rename(draft.Name(), file)
}
