package profile_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/user-service/internal/profile"
	"github.com/headgate/headgate/services/user-service/internal/store"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// TestSEC151SweepersTakeTurns: of several instances one sweeps in an interval, and what is deleted
// is counted.
func TestSEC151SweepersTakeTurns(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t, outbox.Schema(), store.Schema())
	rows := store.New(db, outbox.New("user-service"))
	blobs, err := store.OpenBlobs(t.Context(), "file://"+filepath.Join(t.TempDir(), "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	defer blobs.Close()
	claims := 0
	for range 5 {
		claimed, err := rows.ClaimSweep(t.Context(), time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if claimed {
			claims++
		}
	}
	if claims != 1 {
		t.Errorf("%d instances sweep in one interval", claims)
	}
	if claimed, err := rows.ClaimSweep(t.Context(), time.Now().Add(2*time.Hour), time.Hour); err != nil || !claimed {
		t.Errorf("after the interval: claimed %v, %v", claimed, err)
	}
	const insert = `INSERT INTO avatars (name, user_id, unused_since) SELECT repeat('a', 51) || chr(96 + n) || '.jpg', gen_random_uuid(), now() - interval '2 hours' FROM generate_series(1, 3) n`
	if _, err := db.Exec(t.Context(), insert); err != nil {
		t.Fatal(err)
	}
	later := func() time.Time { return time.Now().Add(24 * time.Hour) }
	metrics := prometheus.NewRegistry()
	sweeper := profile.NewSweeper(profile.NewAvatars(profile.New(rows, nil, nil, later), rows, blobs, 1<<20), time.Hour, testkit.Log(t), metrics)
	testkit.Run(t, sweeper)
	testkit.Eventually(t, func() error {
		left, err := rows.UnusedAvatars(context.Background(), later(), 10)
		if err != nil || len(left) > 0 {
			return fmt.Errorf("%d left, %w", len(left), err)
		}
		return nil
	})
	testkit.Eventually(t, func() error {
		n, err := testutil.GatherAndCount(metrics, "headgate_avatar_sweep_deleted_total")
		if err != nil || n != 2 {
			return fmt.Errorf("%d series, %w", n, err)
		}
		return nil
	})
}
