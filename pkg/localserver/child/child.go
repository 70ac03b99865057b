// Package child starts processes that do not outlive this one. It knows nothing
// of what they are for.
package child

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Process is a running child. Its methods may be called concurrently.
type Process struct {
	cmd  *exec.Cmd
	stop syscall.Signal
	done chan struct{}
	err  error
}

// Signals are the ways in which a child is told to end.
type Signals struct {
	// Stop asks for a graceful end. SIGTERM if zero.
	Stop syscall.Signal
	// Orphan is what the kernel sends the child when this process dies,
	// however it dies (Linux only). SIGKILL if zero.
	Orphan syscall.Signal
}

// outputGrace bounds the wait for output that a grandchild still holds open.
const outputGrace = 2 * time.Second

// Start runs cmd in a process group of its own, so that a Ctrl-C at the terminal
// reaches only this process.
func Start(cmd *exec.Cmd, signals Signals) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	dieWithParent(cmd.SysProcAttr, orDefault(signals.Orphan, syscall.SIGKILL))
	cmd.WaitDelay = outputGrace
	if err := start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p := &Process{cmd: cmd, stop: orDefault(signals.Stop, syscall.SIGTERM), done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func orDefault(given, fallback syscall.Signal) syscall.Signal {
	if given == 0 {
		return fallback
	}
	return given
}

// Pid returns the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended and its output is complete.
func (p *Process) Done() <-chan struct{} { return p.done }

// Reason says why the process ended: "exit status 1", "signal: killed". It waits
// for the end.
func (p *Process) Reason() string {
	<-p.done
	return p.cmd.ProcessState.String()
}

// Err returns the error of a process that ended otherwise than with status 0. It
// waits for the end.
func (p *Process) Err() error {
	<-p.done
	if errors.Is(p.err, exec.ErrWaitDelay) {
		return nil
	}
	return p.err
}

// Stop asks the process to end, and kills its group when ctx ends first. The
// process is gone when Stop returns; the error says that it had to be killed.
func (p *Process) Stop(ctx context.Context) error {
	_ = p.Signal(p.stop) // It may have ended, as is wanted.
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	}
	p.Kill()
	return fmt.Errorf("%s did not stop in time and was killed", p.cmd.Path)
}

// Kill ends the process and its group at once and waits for the end.
func (p *Process) Kill() {
	// The group first: once the leader is reaped its number may belong to others.
	select {
	case <-p.done:
		return
	default:
		_ = syscall.Kill(-p.Pid(), syscall.SIGKILL) // It has ended meanwhile.
	}
	<-p.done
}

// Signal sends sig to the process, and returns os.ErrProcessDone if it has ended.
func (p *Process) Signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// The kernel counts the death of the thread that started a child as the death
// of its parent, so one thread that never ends starts them all.
var starter = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func start(cmd *exec.Cmd) error {
	result := make(chan error, 1)
	starter() <- func() { result <- cmd.Start() }
	return <-result
}
