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

	"github.com/headgate/headgate/pkg/service"
)

// worker is an engine in a process of its own. Hashing occupies a core for tens of
// milliseconds and allocates 19 MiB; in the process of the service, every request would
// wait for that and for the garbage collector. The process starts with the first job.
type worker struct {
	command func() *exec.Cmd
	cfg     Config

	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *gob.Encoder
	in    *gob.Decoder
}

// workerConfig is the first message to a worker. Secrets are sent through the pipe only,
// never by arguments or the environment.
type workerConfig struct {
	Params     Params
	BcryptCost int
	Peppers    service.Keys
	Signers    service.Keys
}

// do implements engine. If the process died, for example because it ran out of memory,
// it is replaced once.
func (w *worker) do(j job) (result, error) {
	r, err := w.ask(j)
	if err == nil {
		return r, nil
	}
	w.close()
	again, err2 := w.ask(j)
	if err2 != nil {
		w.close()
		return result{}, fmt.Errorf("hash in worker process: %w", errors.Join(err, err2))
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
	return w.out.Encode(workerConfig{Params: w.cfg.Params, BcryptCost: w.cfg.BcryptCost, Peppers: w.cfg.Peppers, Signers: w.cfg.Signers})
}

// close implements engine. The process exits when its input ends.
func (w *worker) close() {
	if w.cmd == nil {
		return
	}
	_ = w.stdin.Close() // The process may have exited already.
	_ = w.cmd.Wait()    // It reports its own errors on stderr.
	w.cmd = nil
}

// Work hashes and checks passwords for a Hasher in another process, until in ends. It
// uses one core. It ignores SIGINT and SIGTERM, because the other process still waits for
// its results during a shutdown.
func Work(in io.Reader, out io.Writer) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM)
	runtime.GOMAXPROCS(1)
	yield()
	decode, encode := gob.NewDecoder(in), gob.NewEncoder(out)
	var first workerConfig
	if err := decode.Decode(&first); err != nil {
		return ignoreEOF(err)
	}
	engine := localEngine{Config{Params: first.Params, BcryptCost: first.BcryptCost, Peppers: first.Peppers, Signers: first.Signers}}
	for {
		var j job
		if err := decode.Decode(&j); err != nil {
			return ignoreEOF(err)
		}
		r, err := engine.do(j)
		if err != nil {
			return err
		}
		if err := encode.Encode(r); err != nil {
			return err
		}
	}
}

// yield gives this process a low priority. Hashing takes no longer while the
// machine is idle, and requests that hash nothing do not wait for those that do. Errors are
// ignored: without the permission, the priority stays as it was.
func yield() {
	const niceness = 10
	// Linux may schedule sessions before it looks at the nice values of their processes
	// (sched(7), autogroup), so this process becomes a session with the same nice value.
	_, _ = syscall.Setsid()
	_ = os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(niceness)), 0)
	threads, err := os.ReadDir("/proc/self/task") // On Linux each thread has a nice value; new threads inherit it.
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
