package reconcile_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/testkit"
)

// TestRequestIsBounded is REL-55: a request asks for at most 100,000 events, so that a large
// gap does not fill Redis. The metric counts them all.
func TestRequestIsBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.log = slog.New(slog.DiscardHandler)
	f.consume(accept)
	watermark := `{"producer":"producer","topic":"audit-events","at":"2026-01-01T00:00:00Z","first":1,"seq":50,"epoch":"B","hours":[],
		"closed":[{"epoch":"A","first":1,"seq":99990,"last":99990,"known":99990}]}`
	if err := f.client.HSet(t.Context(), "watermark:published:audit-events", "producer", watermark).Err(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 20*time.Second, func() error {
		request, err := f.request()
		if err != nil {
			return err
		}
		if got := fmt.Sprint(request.Ranges); got != "[{A {1 99990}} {B {1 10}}]" {
			return fmt.Errorf("ranges %s", got)
		}
		if n := f.sum("headgate_events_missing"); n != 100_040 {
			return fmt.Errorf("headgate_events_missing = %v", n)
		}
		return nil
	})
}
