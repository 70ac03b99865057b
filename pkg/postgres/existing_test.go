package postgres_test

import (
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
)

// keyed is a schema besides shop.
var keyed = postgres.Schema{Name: "things", Files: fstest.MapFS{
	"00001_things.sql": {Data: []byte("-- +goose Up\nCREATE TABLE things (name text PRIMARY KEY);\n")},
}}

// shop has a table that was renamed, one that was dropped, and one without a primary key.
var shop = postgres.Schema{Name: "shop", Files: fstest.MapFS{
	"00001_start.sql": {Data: []byte("-- +goose Up\nCREATE TABLE goods (name text PRIMARY KEY);\nCREATE TABLE visits (at timestamptz);\nCREATE TABLE tills (id int PRIMARY KEY);\n")},
	"00002_names.sql": {Data: []byte("-- +goose Up\nALTER TABLE goods RENAME TO articles; -- CREATE TABLE in a comment (\nCREATE VIEW goods AS SELECT name FROM articles;\nDROP TABLE IF EXISTS tills;\n")},
	"00003_more.sql":  {Data: []byte("-- +goose Up\nCREATE TABLE IF NOT EXISTS \"Orders\" (\n    id int,\n    PRIMARY KEY (id)\n);\n")},
}}

func openShop(t *testing.T, url string) error {
	t.Helper()
	pool, err := postgres.OpenExisting(t.Context(), postgres.Database{DatabaseURL: service.Secret(url), DatabaseMaxConns: 2}, testkit.Log(t), keyed, shop)
	if err == nil {
		pool.Close()
	}
	return err
}

// TestOpenExisting is REL-92: a database that is empty, older or incomplete is refused with
// the reason and what to do, and nothing is changed. Later migrations are accepted.
func TestOpenExisting(t *testing.T) {
	t.Parallel()
	const (
		start = "; start this release of the service"
		wait  = "; wait until the restore has ended"
		later = `INSERT INTO schema_shop (version_id, is_applied) VALUES (4, true)`
	)
	both := []postgres.Schema{keyed, shop}
	for name, tc := range map[string]struct {
		schemas []postgres.Schema
		part    string // of a copy with both schemas that is restored
		change  string
		want    string // of the error; "" if the database is accepted
	}{
		"migrated":                            {both, "", ``, ""},
		"migrated, with a schema of the role": {both, "", `DO $$ BEGIN EXECUTE format('CREATE SCHEMA %I', current_user); END $$`, ""},
		"empty":                               {nil, "", ``, "not migrated: table schema_things is missing" + start},
		"a schema is absent":                  {both[:1], "", ``, "not migrated: table schema_shop is missing" + start},
		"older":                               {[]postgres.Schema{keyed, testkit.Until(t, shop, "00001")}, "", ``, "older than this release: migration 00002_names.sql of the schema shop is missing" + start},
		"older, with a table lost":            {[]postgres.Schema{keyed, testkit.Until(t, shop, "00002")}, "", `DROP TABLE visits`, "incomplete: table visits is missing" + wait},
		"no data yet":                         {nil, "--section=pre-data", ``, "incomplete: table schema_things is empty" + wait},
		"no data":                             {nil, "--schema-only", ``, "incomplete: table schema_things is empty" + wait},
		"restored":                            {nil, "--no-comments", ``, ""},
		"a version table is empty":            {both, "", `TRUNCATE schema_shop`, "incomplete: table schema_shop is empty" + wait},
		"a table lost":                        {both, "", `DROP TABLE articles CASCADE`, "incomplete: table articles is missing" + wait},
		"a quoted table lost":                 {both, "", `DROP TABLE "Orders"`, "incomplete: table Orders is missing" + wait},
		"a table not yet filled":              {both, "", `ALTER TABLE "Orders" DROP CONSTRAINT "Orders_pkey"`, "incomplete: table Orders has no primary key yet" + wait},
		"newer":                               {both, "", later, ""},
		"newer, with a table dropped":         {both, "", later + `; DROP TABLE visits`, ""},
		"newer, not yet restored":             {both, "", later + `; ALTER TABLE schema_shop DROP CONSTRAINT schema_shop_pkey`, "incomplete: table schema_shop has no primary key yet" + wait},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := testkit.DatabaseURL(t, tc.schemas...)
			if tc.part != "" {
				testkit.NewCopy(t, both...).Restore(url, tc.part)
			}
			testkit.ChangeDatabase(t, url, tc.change)
			before := testkit.Dump(t, url)
			err := openShop(t, url)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), "database is "+tc.want) {
				t.Errorf("OpenExisting = %v, want %q", err, tc.want)
			}
			if after := testkit.Dump(t, url); after != before {
				t.Errorf("OpenExisting has changed the database from\n%s\nto\n%s", before, after)
			}
		})
	}
}

// TestOpenExistingDuringRestore is REL-92: a restore in one transaction is not waited for.
// Until it commits, a new database is empty, and one that is replaced is locked.
func TestOpenExistingDuringRestore(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		schemas         []postgres.Schema
		statement, want string
	}{
		"new":      {nil, `CREATE TABLE schema_things (version_id bigint, is_applied boolean)`, "database is not migrated: table schema_things is missing"},
		"replaced": {[]postgres.Schema{keyed, shop}, `DROP TABLE schema_things`, "database is in use: table schema_things is locked"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := testkit.DatabaseURL(t, tc.schemas...)
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(t.Context())
			tx, err := conn.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), tc.statement); err != nil {
				t.Fatal(err)
			}
			started := time.Now()
			if err := openShop(t, url); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("OpenExisting = %v, want %q", err, tc.want)
			}
			if took := time.Since(started); took > 15*time.Second { // the statement_timeout
				t.Errorf("OpenExisting took %s", took)
			}
		})
	}
}
