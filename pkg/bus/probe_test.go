package bus

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestLateProbe: a probe that ends after the breaker has closed and opened again does
// not end the probe that runs by then.
func TestLateProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b breaker
		acquire := func(c *call) {
			t.Helper()
			if !b.acquire(t.Context(), c) {
				t.Fatal("acquire() = false")
			}
		}
		var slow, healthy, fast call
		acquire(&healthy)
		acquire(&slow)
		b.fail(&slow)
		time.Sleep(firstProbe)
		acquire(&slow) // The breaker is half-open.
		b.succeed()    // The healthy call closes it.
		acquire(&fast)
		b.fail(&fast)
		time.Sleep(firstProbe)
		acquire(&fast)
		if b.fail(&slow); b.state != halfOpen {
			t.Errorf("state = %d while a probe runs, want half-open", b.state)
		}
		if b.fail(&fast); b.state != open {
			t.Errorf("state = %d after the probe failed, want open", b.state)
		}
	})
}
