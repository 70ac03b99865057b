package testkit

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver that pgtestdb opens
	"github.com/peterldowns/pgtestdb"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/postgres"
)

// DatabaseURL returns the URL of a new database with the schemas, for this test only.
// It is dropped if the test passes and kept if it fails.
func DatabaseURL(t testing.TB, schemas ...postgres.Schema) string {
	t.Helper()
	server, err := servers.postgres()
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("read %s: %v", databaseVariable, err)
	}
	password, _ := u.User.Password()
	return pgtestdb.Custom(t, pgtestdb.Config{
		DriverName: "pgx", Host: u.Hostname(), Port: u.Port(), User: u.User.Username(), Password: password,
		Database: "postgres", Options: "sslmode=disable", ForceTerminateConnections: true,
	}, migrator(schemas)).URL()
}

// SkewedDatabaseURL is DatabaseURL for a database whose clock_timestamp() is ahead of the
// clock of this host: to its clients, their own clocks are behind.
func SkewedDatabaseURL(t testing.TB, ahead time.Duration, schemas ...postgres.Schema) string {
	t.Helper()
	address := DatabaseURL(t, schemas...)
	db, err := pgxpool.New(context.Background(), address)
	if err != nil {
		t.Fatalf("open database: %v", err)
	}
	defer db.Close()
	_, err = db.Exec(context.Background(), fmt.Sprintf(`
		CREATE SCHEMA skewed;
		CREATE FUNCTION skewed.clock_timestamp() RETURNS timestamptz LANGUAGE sql
			AS $$ SELECT pg_catalog.clock_timestamp() + interval '%d microseconds' $$;
		DO $$ BEGIN
			EXECUTE format('ALTER DATABASE %%I SET search_path = skewed, pg_catalog, public', current_database());
		END $$`, ahead.Microseconds()))
	if err != nil {
		t.Fatalf("skew the clock of the database: %v", err)
	}
	return address
}

// Database returns a pool on DatabaseURL that is closed when the test ends.
func Database(t testing.TB, schemas ...postgres.Schema) *postgres.Pool {
	t.Helper()
	return OpenDatabase(t, DatabaseURL(t, schemas...))
}

// OpenDatabase returns a pool on the database with the address that is closed when the test
// ends. Its connections have no limits but those of the address. A test that has failed inside a
// transaction has a connection that is never returned: that does not make the whole package wait.
func OpenDatabase(t testing.TB, address string) *postgres.Pool {
	t.Helper()
	pool, err := pgxpool.New(context.Background(), address)
	if err != nil {
		t.Fatalf("open database: %v", err)
	}
	t.Cleanup(func() {
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			pool.Close()
		}()
		select {
		case <-closed:
		case <-time.After(Timeout):
			t.Error("a connection to the database was never returned to its pool")
		}
	})
	return postgres.NewPool(pool)
}

// migrator migrates the template as a service does.
type migrator []postgres.Schema

// Hash implements pgtestdb.Migrator.
func (m migrator) Hash() (string, error) {
	sum := sha256.New()
	for _, schema := range m {
		fmt.Fprintln(sum, schema.Name)
		err := fs.WalkDir(schema.Files, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := fs.ReadFile(schema.Files, path)
			fmt.Fprintf(sum, "%s %d\n%s", path, len(data), data)
			return err
		})
		if err != nil {
			return "", fmt.Errorf("read migrations: %w", err)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// Migrate implements pgtestdb.Migrator.
func (m migrator) Migrate(ctx context.Context, _ *sql.DB, cfg pgtestdb.Config) error {
	pool, err := pgxpool.New(ctx, cfg.URL())
	if err != nil {
		return fmt.Errorf("open template: %w", err)
	}
	defer pool.Close()
	for _, schema := range m {
		if err := postgres.Migrate(ctx, postgres.NewPool(pool), schema); err != nil {
			return err
		}
	}
	return nil
}

// RedisURL returns the URL of an empty Redis database, for this test only.
func RedisURL(t testing.TB) string {
	t.Helper()
	server, err := servers.redis()
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("read %s: %v", redisVariable, err)
	}
	ctx := context.Background()
	u.Path = "/0"
	register := openRedis(t, u.String())
	// A counter in database 0 numbers the others.
	index, err := register.Incr(ctx, "testkit:databases").Result()
	if err != nil {
		t.Fatalf("take a Redis database: %v", err)
	}
	u.Path = "/" + strconv.FormatInt(index, 10)
	own := openRedis(t, u.String())
	if err := own.FlushDB(ctx).Err(); err != nil {
		t.Fatalf("empty Redis database %d: %v", index, err)
	}
	t.Cleanup(func() { own.FlushDB(ctx) })
	return u.String()
}

// Redis returns a client on RedisURL that is closed when the test ends.
func Redis(t testing.TB) *redis.Client {
	t.Helper()
	return openRedis(t, RedisURL(t))
}

func openRedis(t testing.TB, address string) *redis.Client {
	t.Helper()
	single, ok := OpenRedis(t, address, 5*time.Second).(*redis.Client)
	if !ok {
		t.Fatalf("%s is not one server", redisVariable)
	}
	return single
}
