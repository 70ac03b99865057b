package outbox

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestBlocked is REL-76: a topic is blocked while the same row is its oldest for long. A
// long queue that moves is not blocked, and time without measurements does not count.
func TestBlocked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &backlog{oldest: map[string]oldest{}}
		for i := range 40 {
			b.observe("broken", 7)
			b.observe("long", int64(100+i))
			b.observe("empty", 0)
			time.Sleep(2 * time.Second)
		}
		blocked := b.blocked()
		if len(blocked) != 1 || blocked["broken"] != 80*time.Second {
			t.Errorf("blocked = %v, want broken for 80 s", blocked)
		}
		b.forget()
		b.observe("broken", 7)
		if blocked := b.blocked(); len(blocked) != 0 {
			t.Errorf("blocked = %v after the database was away, want none", blocked)
		}
		time.Sleep(2 * blockedAfter)
		b.resume("broken")
		b.observe("broken", 7)
		if blocked := b.blocked(); len(blocked) != 0 {
			t.Errorf("blocked = %v after Redis was away, want none", blocked)
		}
		time.Sleep(2 * blockedAfter)
		b.observe("broken", 8)
		if blocked := b.blocked(); len(blocked) != 0 {
			t.Errorf("blocked = %v after a row was published, want none", blocked)
		}
	})
}
