package reconcile_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
)

// untilPosted is longer than any test.
const untilPosted = time.Hour

// TestPostIsOnDisk is REL-91: what a consumer posts that it has consumed is a second old,
// so that a crash of Postgres cannot lose it. Otherwise the crash would look like a
// restore. A round that takes long neither delays it nor makes it younger.
func TestPostIsOnDisk(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.produce()
	f.consume(accept)
	f.add(1)
	f.wantRecords(1)
	f.wantConsumed(1)
	epoch := f.epochOfProducer()
	for i, locked := range []time.Duration{0, 1500 * time.Millisecond, untilPosted} {
		seq := int64(101 + i)
		tx, err := f.consumer.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), `LOCK TABLE epoch_checksums IN ACCESS EXCLUSIVE MODE`); err != nil { // Rounds wait.
			t.Fatal(err)
		}
		released := make(chan struct{})
		release := func() { _ = tx.Rollback(context.Background()); close(released) }
		later := time.AfterFunc(locked, release)
		defer func() {
			if later.Stop() {
				release()
			}
			<-released
		}()
		if locked == 1500*time.Millisecond {
			<-time.After(locked - 50*time.Millisecond) // The round ends when the event was just recorded.
		}
		recorded := time.Now()
		execute(t, f.consumer, fmt.Sprintf(`
			INSERT INTO consumed_events (topic, producer, epoch, seq, event_id)
			VALUES ('audit-events', 'producer', '%s', %d, gen_random_uuid())`, epoch, seq))
		testkit.Eventually(t, func() error {
			data, err := f.client.HGet(t.Context(), "watermark:consumed:{audit-events}", "consumer").Bytes()
			if err != nil {
				return err
			}
			var w reconcile.ConsumedWatermark
			if err := json.Unmarshal(data, &w); err != nil || w.Producers["producer"][epoch].Seen < seq {
				return fmt.Errorf("%+v, %w", w, err)
			}
			return nil
		})
		age := time.Since(recorded)
		if later.Stop() {
			release()
		}
		if age < time.Second {
			t.Errorf("locked for %s: what was recorded %s ago is posted", locked, age)
		}
	}
}
