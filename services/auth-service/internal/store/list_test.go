package store_test

import (
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/store"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// TestListReadsAnIndex: a page of accounts reads no more rows than it needs, on every page and
// also after Postgres has decided for a generic plan.
func TestListReadsAnIndex(t *testing.T) {
	t.Parallel()
	const accounts = 20_000
	db, scans := testkit.Scans(t, "accounts", outbox.Schema(), store.Schema())
	_, err := db.Exec(t.Context(), `
		INSERT INTO accounts (id, email, email_key, name, role, status, password_hash, created_at, updated_at)
		SELECT gen_random_uuid(), n || '@example.com', n || '@example.com', 'Ann', 'user', 'active', '', at, at
		FROM generate_series(1, $1) n, LATERAL (SELECT timestamptz '2020-01-01' + n % 1000 * interval '1 microsecond') AS created (at)`, accounts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(t.Context(), `ANALYZE accounts`); err != nil {
		t.Fatal(err)
	}
	rows := store.New(db, outbox.New("auth-service"), time.Now)
	before := scans()
	testkit.WantPages(t, accounts, func(after cursor.Position, limit int) ([]account.Account, error) {
		return rows.Accounts(t.Context(), account.Filter{}, after, limit)
	}, func(a account.Account) (time.Time, string) { return a.CreatedAt, a.ID })
	if n := scans() - before; n > 0 {
		t.Errorf("the whole table was read %d times", n)
	}
}
