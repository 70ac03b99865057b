// Package localserver starts private Postgres and Redis servers on loopback, for
// development and for tests, and installs them where they are missing. It knows
// nothing of what is stored in them.
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

// ErrNotInstalled says that no binary of the server was found. Install helps.
var ErrNotInstalled = errors.New("not installed")

// Options say how to run a server. The zero value of all but Dir is usable.
type Options struct {
	// Dir is the folder of the server's data. It is made if need be, and must
	// not be used by two owners at once: what an earlier owner that crashed has
	// left running there is stopped.
	Dir string
	// Durable keeps what was acknowledged through crashes and asks clients for a
	// password. Without it the server is fast, and its data is thrown away when
	// it is stopped.
	Durable bool
	// Port to listen on; a free one if 0.
	Port int
	// Bin is a folder to search before all others.
	Bin string
	// Log receives a line when something unusual is done.
	Log io.Writer
	// Output receives what the server prints.
	Output io.Writer
}

func (o Options) log() io.Writer { return orDiscard(o.Log) }

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// Server is a running server. Its owner may wait for Done and start another one
// with the same Dir and Port.
type Server struct {
	*child.Process

	// URL is what clients connect to, as its superuser.
	URL string
	// Port is the one that the server listens on.
	Port int

	discard string // the data to throw away at Stop
}

// Stop ends the server gracefully, or kills it when ctx ends first. The server is
// gone when it returns.
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
	// probe succeeds when the server answers and is ours, not a stranger that
	// took the port first.
	probe func(ctx context.Context) error
}

// errPortTaken says that another process was quicker.
var errPortTaken = errors.New("port is taken")

// start runs launch until the server answers, with a new port when the chosen
// one is lost to another process.
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

// ready waits until the probe succeeds. Whatever else happens, the process is
// gone when it returns.
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
	said := a.output.String()
	err := fmt.Errorf("ended at start with %s: %s", a.process.Reason(), said)
	if strings.Contains(said, "already in use") {
		return errors.Join(errPortTaken, err)
	}
	return err
}

// tail passes on what a server prints and keeps the end of it.
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

// password returns the password kept in the file, made first if need be.
func password(file string) (string, error) {
	data, err := os.ReadFile(file) //nolint:gosec // The path is made from Options.Dir.
	if err == nil && len(bytes.TrimSpace(data)) > 0 {
		return string(bytes.TrimSpace(data)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read password: %w", err)
	}
	made := rand.Text()
	if err := writeAtomically(file, made+"\n"); err != nil {
		return "", fmt.Errorf("keep password: %w", err)
	}
	return made, nil
}

// writeAtomically makes the file readable to its owner alone.
func writeAtomically(file, content string) error {
	draft, err := os.CreateTemp(filepath.Dir(file), ".draft-*")
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name()) // Nothing is left to remove after a rename.
	_, err = draft.WriteString(content)
	if err = errors.Join(err, draft.Close()); err != nil {
		return err
	}
	return os.Rename(draft.Name(), file)
}
