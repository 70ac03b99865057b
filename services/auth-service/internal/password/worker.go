package password

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
)

// worker is an engine in a process of its own. A hash occupies a core for tens of
// milliseconds and takes 19 MiB, which the collector then has to give back; in the
// process that answers requests, everybody would wait for both. It is started with
// its first job.
type worker struct {
	command func() *exec.Cmd
	maker   maker

	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *gob.Encoder
	in    *gob.Decoder
}

// hello is what a worker is told first. Pepper's secret goes by a pipe only.
type hello struct {
	Params     Params
	BcryptCost int
	Peppers    []secretPepper
}

type secretPepper struct {
	ID     string
	Secret []byte
}

// do implements engine. A worker that died, such as for want of memory, is
// replaced once.
func (w *worker) do(j job) (result, error) {
	r, err := w.ask(j)
	if err == nil {
		return r, nil
	}
	w.close()
	again, err2 := w.ask(j)
	if err2 != nil {
		w.close()
		return result{}, fmt.Errorf("hash in a process of its own: %w", errors.Join(err, err2))
	}
	return again, nil
}

func (w *worker) ask(j job) (result, error) {
	if w.cmd == nil {
		if err := w.start(); err != nil {
			return result{}, err
		}
	}
	if err := w.out.Encode(j); err != nil {
		return result{}, err
	}
	var r result
	if err := w.in.Decode(&r); err != nil {
		return result{}, err
	}
	return r, nil
}

func (w *worker) start() error {
	cmd := w.command()
	stdin, inErr := cmd.StdinPipe()
	stdout, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr); err != nil {
		return err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	w.cmd, w.stdin, w.out, w.in = cmd, stdin, gob.NewEncoder(stdin), gob.NewDecoder(stdout)
	first := hello{Params: w.maker.cfg.Params, BcryptCost: w.maker.cfg.BcryptCost}
	for _, p := range w.maker.cfg.Peppers {
		first.Peppers = append(first.Peppers, secretPepper{p.ID, p.secret})
	}
	return w.out.Encode(first)
}

// close implements engine. Work ends with its input.
func (w *worker) close() {
	if w.cmd == nil {
		return
	}
	_ = w.stdin.Close() // It may have gone already.
	_ = w.cmd.Wait()    // How it ended, its own words on stderr say.
	w.cmd = nil
}

// Work makes and checks hashes for a Hasher of another process, until in ends. It
// takes one core. Signals are for that other process, which must not lose what it
// waits for.
func Work(in io.Reader, out io.Writer) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM)
	runtime.GOMAXPROCS(1)
	yield()
	decode, encode := gob.NewDecoder(in), gob.NewEncoder(out)
	var first hello
	if err := decode.Decode(&first); err != nil {
		return ignoreEOF(err)
	}
	cfg := Config{Params: first.Params, BcryptCost: first.BcryptCost}
	for _, p := range first.Peppers {
		cfg.Peppers = append(cfg.Peppers, Pepper{ID: p.ID, secret: p.Secret})
	}
	m := maker{cfg}
	for {
		var j job
		if err := decode.Decode(&j); err != nil {
			return ignoreEOF(err)
		}
		r, err := m.do(j)
		if err != nil {
			return err
		}
		if err := encode.Encode(r); err != nil {
			return err
		}
	}
}

// yield lets everything else on the machine go first: a hash takes no longer for it
// while there is time, and a request that needs none does not wait for those that
// do. What the system does not allow stays as it was.
func yield() {
	const niceness = 10
	// Linux may weigh sessions against each other first, and only within one their
	// processes (sched(7), autogroup): so this is a session of its own, and the
	// niceness that of the session, too.
	_, _ = syscall.Setsid()
	_ = os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(niceness)), 0)
	threads, err := os.ReadDir("/proc/self/task") // On Linux each has its own; later ones inherit it.
	if err != nil {
		_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, niceness)
	}
	for _, thread := range threads {
		if id, err := strconv.Atoi(thread.Name()); err == nil {
			_ = syscall.Setpriority(syscall.PRIO_PROCESS, id, niceness)
		}
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
