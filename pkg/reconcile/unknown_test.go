package reconcile_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestUnknownEnd is REL-54: nobody can know what a producer's database had published when
// it was restored while Redis was empty. So gaps says that it cannot know, until an
// operator accepts it.
func TestUnknownEnd(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	stop := f.produce()
	stopConsumer := f.consume(accept)
	f.add(5)
	f.wantRecords(5)
	f.eventuallyReports()
	stopConsumer()
	restore := backup(t, f.producer)
	f.add(3) // Nobody ever reads these.
	f.wantPublished()
	stop()
	restore()
	f.flush()
	stop = f.produce()
	stopConsumer = f.consume(accept)
	f.add(4)
	f.wantRecords(9)
	f.acceptUnknownEnd(6)
	f.eventuallyReports()

	// The consumer has a record of which the producer does not know yet.
	stop()
	stopConsumer()
	execute(t, f.consumer, `
		DELETE FROM accepted_gaps;
		INSERT INTO consumed_events (topic, producer, epoch, seq, event_id)
		SELECT topic, producer, epoch, end_seq + 1, gen_random_uuid() FROM epoch_watermarks WHERE end_unknown`)
	f.acceptUnknownEnd(7)
	f.eventuallyReports()
}

// acceptUnknownEnd waits until gaps has no doubt but what came from a number on, and
// accepts it.
func (f *fixture) acceptUnknownEnd(from int64) {
	f.t.Helper()
	var id string
	testkit.Eventually(f.t, func() error {
		report := f.report()
		if len(report.Gaps) > 0 || len(report.Doubts) != 1 {
			return fmt.Errorf("gaps %v, doubts %q", report.Gaps, report.Doubts)
		}
		var text string
		id, text, _ = strings.Cut(report.Doubts[0], "  ")
		if !strings.HasSuffix(text, "nobody knows what came next") {
			return fmt.Errorf("doubt: %s", report.Doubts[0])
		}
		return nil
	})
	gap, err := reconcile.ParseGap(id)
	if err != nil || gap.ID() != id || gap.Missing.First != from {
		f.t.Errorf("ParseGap(%s) = %v, %v, want what came from %d on", id, gap, err, from)
	}
	if err := f.accept(gap); err != nil {
		f.t.Fatal(err)
	}
}

// TestStaleWatermark is REL-54: a producer that misses four of its watermarks may have
// published what nobody has read.
func TestStaleWatermark(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.produce()
	stop := f.consume(accept)
	f.add(1)
	f.wantRecords(1)
	f.eventuallyReports()
	stop()
	execute(t, f.consumer, `UPDATE database_checks SET checked_at = '-infinity'`)
	for interval, stale := range map[string]map[int]bool{
		"'15 seconds'": {59: false, 62: true},
		"'5 minutes'":  {19 * 60: false, 20*60 + 2: true},
		"NULL":         {9 * 60: false, 10*60 + 2: true},
	} {
		for age, want := range stale {
			execute(t, f.consumer, fmt.Sprintf(`UPDATE epoch_watermarks SET changed_at = now() - interval '%d seconds', post_interval = %s`, age, interval))
			report := f.report()
			if got := len(report.Doubts) == 1; got != want || len(report.Notes)+len(report.Doubts) != 1 {
				t.Errorf("interval %s, %d s old: doubts %q, notes %q", interval, age, report.Doubts, report.Notes)
			}
		}
	}
}

// FuzzParseGap: a gap that can be parsed has the name that it was parsed from.
func FuzzParseGap(f *testing.F) {
	for _, id := range []string{"auth-service:5", "auth-service/EPOCH:6..8", "auth-service/EPOCH:9..", "auth-service@2026-01-02T03"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		gap, err := reconcile.ParseGap(id)
		if err != nil {
			return
		}
		if again, err := reconcile.ParseGap(gap.ID()); err != nil || again != gap {
			t.Errorf("%q is %+v, and %q is %+v, %v", id, gap, gap.ID(), again, err)
		}
	})
}
