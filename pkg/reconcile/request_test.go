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
	watermark := `{"producer":"producer","topic":"audit-events","at":%q,"first":1,"seq":50,"epoch":"B","hours":[],
		"closed":[{"epoch":"A","first":1,"seq":99990,"last":99990,"known":99990}]}`
	testkit.Eventually(t, func() error {
		f.post(fmt.Sprintf(watermark, time.Now().UTC().Format(time.RFC3339Nano)))
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
