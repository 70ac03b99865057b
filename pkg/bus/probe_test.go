package bus

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestProbeDecides: messages that fail together share one probe. The breaker opens
// only if the probe fails, and closes with the first probe that succeeds.
func TestProbeDecides(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var probes atomic.Int64
		var down atomic.Bool
		b := newBreaker(func(context.Context) error {
			time.Sleep(100 * time.Millisecond)
			probes.Add(1)
			if down.Load() {
				return errors.New("down")
			}
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		running.Go(func() { b.probeUntilClosed(ctx, func(time.Duration, error) {}) })
		failTogether := func(n int) (opened int) {
			var mu sync.Mutex
			var messages sync.WaitGroup
			for range n {
				messages.Go(func() {
					first, err := b.fail(ctx)
					if (err != nil) != down.Load() {
						t.Errorf("fail() = %v, down: %t", err, down.Load())
					}
					mu.Lock()
					defer mu.Unlock()
					if first {
						opened++
					}
				})
			}
			messages.Wait()
			return opened
		}

		if n := failTogether(50); n != 0 || probes.Load() != 1 || b.paused() != 0 {
			t.Errorf("available: opened %d times with %d probes, paused = %v", n, probes.Load(), b.paused())
		}
		down.Store(true)
		if n := failTogether(50); n != 1 || probes.Load() != 2 || b.paused() != 1 {
			t.Errorf("unavailable: opened %d times with %d probes, paused = %v", n, probes.Load(), b.paused())
		}
		time.Sleep(time.Minute)
		if n := probes.Load(); n < 6 || n > 12 {
			t.Errorf("%d probes in a minute", n)
		}
		passed := make(chan bool, 1)
		running.Go(func() { passed <- b.pass(ctx) })
		synctest.Wait()
		if len(passed) != 0 {
			t.Error("a message passed while the breaker was open")
		}
		down.Store(false)
		time.Sleep(longestProbe + time.Second)
		if !<-passed || b.paused() != 0 {
			t.Errorf("the breaker is open though the probe succeeds")
		}
	})
}
