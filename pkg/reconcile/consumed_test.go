package reconcile_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/pkg/reconcile"
)

// TestMerge is REL-51: a watermark from an older copy of Redis makes nobody forget what the
// group has consumed.
func TestMerge(t *testing.T) {
	t.Parallel()
	watermark := func(generation string, seq, seen int64) reconcile.ConsumedWatermark {
		return reconcile.ConsumedWatermark{Generation: generation, Producers: map[string]map[string]reconcile.Consumed{
			"producer": {"E": {Seq: seq, Seen: seen}},
		}}
	}
	earlier := func(w reconcile.ConsumedWatermark, generations ...string) reconcile.ConsumedWatermark {
		w.Earlier = generations
		return w
	}
	for name, tc := range map[string]struct{ before, later, want reconcile.ConsumedWatermark }{
		"newer":              {watermark("a", 5, 7), watermark("a", 6, 8), watermark("a", 6, 8)},
		"older":              {watermark("a", 5, 7), watermark("a", 3, 4), watermark("a", 5, 7)},
		"new generation":     {watermark("a", 5, 7), watermark("b", 3, 4), earlier(watermark("b", 3, 4), "a")},
		"earlier generation": {earlier(watermark("b", 3, 4), "a"), watermark("a", 5, 7), earlier(watermark("b", 3, 4), "a")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, tc.before.Merge(tc.later)); diff != "" {
				t.Errorf("Merge: %s", diff)
			}
		})
	}
}
