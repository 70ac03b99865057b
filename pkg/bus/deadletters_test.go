package bus_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestREL68PoisonEntriesDoNotJamTheConsumer is REL-68: entries whose ids are too long
// for an index become dead letters. There are more of them than the window has places.
func TestREL68PoisonEntriesDoNotJamTheConsumer(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	f.consume("a", nil)
	const poison = 80
	for i := range poison {
		m := newMessage(t, event.UserLoggedIn{})
		m.UUID = strconv.Itoa(i) + strings.Repeat(uuid.NewString(), 250)
		f.publish(m)
	}
	good := newMessage(t, event.UserLoggedIn{})
	f.publish(good)
	f.wantSeen(good)
	f.wantDeadLetters(poison)
	f.wantNothingPending()
}

// TestDeadIsCountedAfterItIsStored: a message whose dead letter cannot be stored is not
// dead. It is redelivered.
func TestDeadIsCountedAfterItIsStored(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	if _, err := f.db.Exec(t.Context(), `ALTER TABLE dead_letters RENAME TO away`); err != nil {
		t.Fatal(err)
	}
	f.consume("a", nil)
	m := newMessage(t, event.UserLoggedIn{})
	m.UUID = uuid.NewString() // not that of its event
	f.publish(m)
	testkit.Eventually(t, func() error {
		if n := f.counted("failed"); n < 2 {
			return fmt.Errorf("%v failed attempts, want 2", n)
		}
		return nil
	})
	if n := f.counted("dead"); n != 0 {
		t.Errorf("%v dead letters are counted, and none is stored", n)
	}
	if _, err := f.db.Exec(t.Context(), `ALTER TABLE away RENAME TO dead_letters`); err != nil {
		t.Fatal(err)
	}
	f.wantDeadLetters(1)
	testkit.Eventually(t, func() error {
		if n := f.counted("dead"); n != 1 {
			return fmt.Errorf("%v dead letters are counted, want 1", n)
		}
		return nil
	})
}

// counted returns the sum of headgate_events_total with a result.
func (f *fixture) counted(result string) float64 {
	f.t.Helper()
	families, err := f.metrics.Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	var sum float64
	for _, family := range families {
		if family.GetName() != "headgate_events_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			for _, label := range m.GetLabel() {
				if label.GetName() == "result" && label.GetValue() == result {
					sum += m.GetCounter().GetValue()
				}
			}
		}
	}
	return sum
}
