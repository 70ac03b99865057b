package postgres_test

import (
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/testkit"
)

// SEC-97: processes agree on the time of their database, whatever the clocks of their hosts
// say.
func TestSEC97ClockOfTheDatabase(t *testing.T) {
	t.Parallel()
	db := testkit.OpenDatabase(t, testkit.SkewedDatabaseURL(t, time.Hour))
	clock, err := postgres.NewClock(t.Context(), db, testkit.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, clock)
	var before, after time.Time
	if err := db.QueryRow(t.Context(), `SELECT clock_timestamp()`).Scan(&before); err != nil {
		t.Fatal(err)
	}
	got := clock.Now()
	if err := db.QueryRow(t.Context(), `SELECT clock_timestamp()`).Scan(&after); err != nil {
		t.Fatal(err)
	}
	const tolerance = time.Second // half a round trip to a loaded server
	if got.Before(before.Add(-tolerance)) || got.After(after.Add(tolerance)) {
		t.Errorf("Now() = %s, want %s to %s", got, before, after)
	}
	if ahead := time.Until(got); ahead < 59*time.Minute {
		t.Errorf("Now() is %s ahead of this host, want an hour as the database is", ahead)
	}
}
