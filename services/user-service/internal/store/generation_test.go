package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/user-service/internal/profile"
	"github.com/headgate/headgate/services/user-service/internal/store"
)

// instance is the cache of an instance of the service, with its own connections.
type instance struct {
	*store.Cache

	generation *store.Generation
	client     redis.UniversalClient
	metrics    *prometheus.Registry
	running    testkit.Running
}

func newInstance(t *testing.T, db *postgres.Pool, redisURL string) instance {
	t.Helper()
	i := instance{generation: store.NewGeneration(db, testkit.Log(t)), metrics: prometheus.NewRegistry()}
	client, err := bus.Redis{RedisURL: service.Secret(redisURL)}.OpenWith(time.Second, i.generation.Connected)
	if err != nil {
		t.Fatal(err)
	}
	i.client = client
	t.Cleanup(func() { client.Close() })
	if err := i.generation.Refresh(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, i.generation.Watch(client))
	i.Cache = store.NewCache(store.CacheConfig{
		Client: client, Generation: i.generation.Current, Reads: 10, Memory: 1 << 20, Log: testkit.Log(t), Metrics: i.metrics, Now: time.Now,
	})
	i.running = testkit.Run(t, i.Cache)
	return i
}

// TestOlderRedisServesNothing is REL-43: Redis comes back with an older copy of its data,
// which has the profile before a change. No instance serves it, and the new one is cached.
func TestOlderRedisServesNothing(t *testing.T) {
	t.Parallel()
	db, userID := testkit.Database(t), uuid.NewString()
	opts := localserver.Options{Dir: filepath.Join(t.TempDir(), "redis")}
	server, err := localserver.StartRedis(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	opts.Port = server.Port
	here, there := newInstance(t, db, server.URL), newInstance(t, db, server.URL)
	if here.generation.Current() == "" || here.generation.Current() != there.generation.Current() {
		t.Fatalf("two instances have the generations %q and %q", here.generation.Current(), there.generation.Current())
	}
	before := here.generation.Current()
	put(t, here.Cache, version(userID, 1))
	if _, ok := get(t, there.Cache, userID); !ok {
		t.Fatal("the profile is not in the cache")
	}
	client := testkit.OpenRedis(t, server.URL, 5*time.Second)
	if err := client.Save(t.Context()).Err(); err != nil { // the copy
		t.Fatal(err)
	}
	if err := here.Drop(t.Context(), userID); err != nil {
		t.Fatal(err)
	}
	finish := slowReader(t, there.Cache, version(userID, 1)) // read from Postgres before the change
	if err := here.Changed(t.Context(), version(userID, 2)); err != nil {
		t.Fatal(err)
	}

	server.Kill()
	if server, err = localserver.StartRedis(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if raw := testkit.OpenRedis(t, server.URL, 5*time.Second).Get(t.Context(), "user:profile:v1:"+userID).Val(); versionIn(t, raw) != 1 {
		t.Fatalf("Redis has %q, want the older copy", raw)
	}
	for name, cache := range map[string]instance{"here": here, "there": there} {
		testkit.Eventually(t, func() error {
			if p, ok := get(t, cache.Cache, userID); ok {
				t.Fatalf("%s: Get = version %d from the older copy", name, p.Version)
			}
			if current := cache.generation.Current(); current == "" || current == before {
				return fmt.Errorf("%s: the generation is %q", name, current)
			}
			return nil
		})
	}
	finish()
	if p, ok := get(t, there.Cache, userID); ok {
		t.Errorf("Get = version %d from a slow reader", p.Version)
	}
	put(t, here.Cache, version(userID, 2))
	if p, ok := get(t, there.Cache, userID); !ok || p.Version != 2 {
		t.Errorf("Get = version %d, %v, want 2", p.Version, ok)
	}
}

func versionIn(t *testing.T, raw string) int64 {
	t.Helper()
	var entry struct{ Version int64 }
	if err := json.Unmarshal([]byte(raw), &entry); err != nil {
		t.Fatalf("entry %q: %v", raw, err)
	}
	return entry.Version
}

// TestChangeAfterRestoreIsSeen is REL-43: the database is replaced by an older copy while
// the cache has a newer version of a profile. The next change gets a version that is lower
// than the cached one. Its caller sees it at once, in every instance.
func TestChangeAfterRestoreIsSeen(t *testing.T) {
	t.Parallel()
	server, admin := startRestorable(t)
	cfg, err := pgxpool.ParseConfig(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	cfg.ConnConfig.Database = "users"
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	db := postgres.NewPool(pool)
	for _, schema := range []postgres.Schema{outbox.Schema(), store.Schema()} {
		if err := postgres.Migrate(t.Context(), db, schema); err != nil {
			t.Fatal(err)
		}
	}
	redisURL := testkit.RedisURL(t)
	newProfiles := func() *profile.Profiles {
		return profile.New(store.New(db, outbox.New("user-service")), newInstance(t, db, redisURL).Cache, nil, time.Now)
	}
	here, there := newProfiles(), newProfiles()
	newCaller := func() profile.Caller {
		return profile.Caller{Identity: token.Identity{UserID: uuid.Must(uuid.NewV7()).String(), Email: "ann@example.com", Name: "Ann"}}
	}
	ann, ben := newCaller(), newCaller()
	change := func(caller profile.Caller, bio string) {
		t.Helper()
		text, err := json.Marshal(bio)
		if err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, func() error { // The restore cuts connections.
			_, err := here.Change(t.Context(), caller, profile.Change{Bio: text}, nil)
			return err
		})
	}
	bio := func(profiles *profile.Profiles, caller profile.Caller) (text string) {
		t.Helper()
		testkit.Eventually(t, func() error {
			p, _, err := profiles.Me(t.Context(), caller)
			text = p.Bio
			return err
		})
		return text
	}

	change(ann, "in the backup")
	change(ben, "in the backup")
	run(t, admin, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'users'`, `CREATE DATABASE backup TEMPLATE users`)
	for i := range 4 {
		change(ann, fmt.Sprintf("lost %d", i))
		change(ben, fmt.Sprintf("lost %d", i))
	}
	for _, caller := range []profile.Caller{ann, ben} { // into the cache
		if got := bio(there, caller); got != "lost 3" {
			t.Fatalf("before the restore bio = %q", got)
		}
	}
	run(t, admin,
		`ALTER DATABASE users ALLOW_CONNECTIONS false`,
		`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'users'`,
		`ALTER DATABASE users RENAME TO lost`, `ALTER DATABASE backup RENAME TO users`)
	change(ann, "after the restore")
	for name, profiles := range map[string]*profile.Profiles{"here": here, "there": there} {
		if got := bio(profiles, ann); got != "after the restore" {
			t.Errorf("%s: bio = %q, want that of the change", name, got)
		}
		// What the database has lost is served only until the restore is noticed.
		testkit.Eventually(t, func() error {
			if got := bio(profiles, ben); got != "in the backup" {
				return fmt.Errorf("%s: bio = %q, want that of the backup", name, got)
			}
			return nil
		})
	}
}

// startRestorable starts a server with an empty database users.
func startRestorable(t *testing.T) (*localserver.Server, *pgx.Conn) {
	t.Helper()
	server, err := localserver.StartPostgres(t.Context(), localserver.Options{Dir: filepath.Join(t.TempDir(), "postgres")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	admin, err := pgx.Connect(t.Context(), server.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close(context.Background()) })
	run(t, admin, `CREATE DATABASE users`)
	return server, admin
}

func run(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}
