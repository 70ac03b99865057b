package store_test

import (
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/user-service/internal/profile"
	"github.com/headgate/headgate/services/user-service/internal/store"
)

// TestListReadsAnIndex: a page of profiles reads no more rows than it needs.
func TestListReadsAnIndex(t *testing.T) {
	t.Parallel()
	const profiles = 20_000
	db, scans := testkit.Scans(t, "profiles", outbox.Schema(), store.Schema())
	_, err := db.Exec(t.Context(), `
		INSERT INTO profiles (user_id, email, name, created_at, updated_at)
		SELECT gen_random_uuid(), n || '@example.com', 'Ann', at, at
		FROM generate_series(1, $1) n, LATERAL (SELECT timestamptz '2020-01-01' + n % 1000 * interval '1 microsecond') AS created (at)`, profiles)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(t.Context(), `ANALYZE profiles`); err != nil {
		t.Fatal(err)
	}
	rows := store.New(db, outbox.New("user-service"))
	before := scans()
	testkit.WantPages(t, profiles, func(after cursor.Position, limit int) ([]profile.Profile, error) {
		return rows.List(t.Context(), profile.Search{}, after, limit)
	}, func(p profile.Profile) (time.Time, string) { return p.CreatedAt, p.UserID })
	if n := scans() - before; n > 0 {
		t.Errorf("the whole table was read %d times", n)
	}
}
