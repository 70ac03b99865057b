// Package child starts processes that do not outlive this one. It must not know what
// they are for.
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

// Signals are the signals that end a child.
type Signals struct {
	// Stop requests a graceful end. SIGTERM if zero.
	Stop syscall.Signal
	// Orphan is the signal that the kernel sends the child when this process dies for
	// any reason (Linux only). SIGKILL if zero.
	Orphan syscall.Signal
}

// outputTimeout bounds the wait for output that a grandchild still holds open.
const outputTimeout = 2 * time.Second

// Start starts cmd in a process group of its own, so that Ctrl-C in the terminal
// signals only this process.
func Start(cmd *exec.Cmd, signals Signals) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	dieWithParent(cmd.SysProcAttr, orDefault(signals.Orphan, syscall.SIGKILL))
	cmd.WaitDelay = outputTimeout
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

// Reason waits for the process and returns how it ended, such as "exit status 1" or
// "signal: killed".
func (p *Process) Reason() string {
	<-p.done
	return p.cmd.ProcessState.String()
}

// Err waits for the process and returns an error unless it ended with status 0.
func (p *Process) Err() error {
	<-p.done
	if errors.Is(p.err, exec.ErrWaitDelay) {
		return nil
	}
	return p.err
}

// Stop sends the stop signal, and kills the process group when ctx ends first. The
// process has ended when Stop returns. The error says that it was killed.
func (p *Process) Stop(ctx context.Context) error {
	_ = p.Signal(p.stop) // It fails if the process has ended.
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	}
	p.Kill()
	return fmt.Errorf("%s did not stop in time and was killed", p.cmd.Path)
}

// Kill kills the process and its group, and waits for the process.
func (p *Process) Kill() {
	// Not after the leader is reaped: its number may then belong to another group.
	select {
	case <-p.done:
		return
	default:
		_ = syscall.Kill(-p.Pid(), syscall.SIGKILL) // It may have ended meanwhile.
	}
	<-p.done
}

// Signal sends sig to the process. The error is os.ErrProcessDone if it has ended.
func (p *Process) Signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// To the kernel, the parent of a child is the thread that started it. So all children
// are started by one thread that never ends.
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
