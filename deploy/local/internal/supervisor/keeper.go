package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// keeper keeps one unit running.
type keeper struct {
	*Supervisor

	unit     Unit
	deadline time.Time // for the first readiness
	reported bool      // whether the result of the first start was sent to Ready
	failures int       // consecutive ones
}

// killTimeout is how long a program that was given up may take to end before it is killed.
const killTimeout = 5 * time.Second

// errGivenUp ends the keeper of a unit that did not become ready.
var errGivenUp = errors.New("given up")

func (k *keeper) run(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		err := k.once(ctx)
		if ctx.Err() != nil || errors.Is(err, errGivenUp) {
			return
		}
		if k.reported && time.Since(began) >= k.opts.Healthy {
			k.failures = 0
		}
		k.failures++
		if !k.reported && k.failures >= k.opts.Starts {
			k.giveUp(fmt.Sprintf("it ended %d times, the last time with: %v", k.failures, err))
			return
		}
		pause := k.backoff()
		k.logf("%s ended: %v; restarting in %s", k.unit.Name, err, pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (k *keeper) backoff() time.Duration {
	pause := k.opts.FirstBackoff
	for range k.failures - 1 {
		pause = min(2*pause, k.opts.MaxBackoff)
	}
	return pause
}

func (k *keeper) giveUp(reason string) {
	k.reported = true
	err := &GaveUpError{Name: k.unit.Name, Reason: reason}
	if k.unit.Tail != nil {
		err.Tail = k.unit.Tail()
	}
	k.ready <- err
}

// once starts the program, waits for its end and returns the reason.
func (k *keeper) once(ctx context.Context) error {
	process, err := k.unit.Start(ctx)
	if err != nil {
		return err
	}
	k.running(k.unit.Name, process.Pid())
	defer k.ended(k.unit.Name)

	if !k.await(ctx, process) && ctx.Err() == nil {
		select {
		case <-process.Done():
		default:
			stop, cancel := context.WithTimeout(ctx, killTimeout)
			defer cancel()
			_ = process.Stop(stop) // The process has ended, also after an error.
			k.giveUp(fmt.Sprintf("it was not ready within %s", k.opts.ReadyTimeout))
			return errGivenUp
		}
	}
	select {
	case <-process.Done():
		return errors.New(process.Reason())
	case <-ctx.Done():
	}
	//nolint:contextcheck // ctx has ended; Stop sets the timeout of stopping.
	if err := process.Stop(k.stopContext()); err != nil {
		k.logf("%s: %v", k.unit.Name, err)
	}
	return ctx.Err()
}

// await waits until the program is ready and says whether it is. It does so for the first
// start only.
func (k *keeper) await(ctx context.Context, process Process) bool {
	if k.reported {
		return true
	}
	ctx, cancel := context.WithDeadline(ctx, k.deadline)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for k.unit.Ready != nil && k.unit.Ready(ctx) != nil {
		select {
		case <-process.Done():
			return false
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	k.reported = true
	k.ready <- nil
	return true
}
