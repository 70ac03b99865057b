package store_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/user-service/internal/profile"
	"github.com/headgate/headgate/services/user-service/internal/store"
)

// replicated is a store on a primary and one streaming replica.
type replicated struct {
	t       *testing.T
	primary *postgres.Pool
	server  *localserver.Server // the replica
	options localserver.Options
	rows    *store.Store
	metrics *prometheus.Registry
}

func newReplicated(t *testing.T) *replicated {
	t.Helper()
	r := &replicated{t: t, metrics: prometheus.NewRegistry(), options: localserver.Options{Dir: filepath.Join(t.TempDir(), "replica")}}
	primary, err := localserver.StartPostgres(t.Context(), localserver.Options{Dir: filepath.Join(t.TempDir(), "primary")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := primary.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	log := testkit.Log(t)
	if r.primary, err = postgres.Open(t.Context(), postgres.Database{DatabaseURL: service.Secret(primary.URL), DatabaseMaxConns: 10}, log, outbox.Schema(), store.Schema()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.primary.Close)
	if r.server, err = localserver.StartReplica(t.Context(), r.options, primary); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.stop() })
	replicas, err := store.NewReplicas(t.Context(), r.primary, store.ReplicasConfig{URLs: service.Secret(r.server.URL), Conns: 10, Log: log, Metrics: r.metrics})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replicas.Close)
	testkit.Run(t, replicas)
	r.rows = store.New(r.primary, outbox.New("user-service"))
	r.rows.Replicas = replicas
	return r
}

// stop ends the replica, if it runs.
func (r *replicated) stop() {
	if r.server == nil {
		return
	}
	if err := r.server.Stop(context.Background()); err != nil {
		r.t.Error(err)
	}
	r.server = nil
}

func (r *replicated) add(name string) {
	r.t.Helper()
	p := profile.Profile{UserID: uuid.Must(uuid.NewV7()).String(), Name: name, Email: name + "@example.com", Preferences: []byte("{}"), Version: 1, CreatedAt: time.Now(), UpdatedAt: time.Now()}
	if _, err := r.rows.Seed(r.t.Context(), p); err != nil {
		r.t.Fatal(err)
	}
}

// list returns the names in the directory and which server has answered.
func (r *replicated) list() (names []string, server string) {
	r.t.Helper()
	before := r.reads("replica")
	found, err := r.rows.List(r.t.Context(), profile.Search{}, "", 100)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, p := range found {
		names = append(names, p.Name)
	}
	if r.reads("replica") > before {
		return names, "replica"
	}
	return names, "primary"
}

func (r *replicated) reads(server string) (n float64) {
	r.t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == "headgate_directory_reads_total" && m.GetLabel()[0].GetValue() == server {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// wantList waits until the server answers with as many names.
func (r *replicated) wantList(server string, n int) {
	r.t.Helper()
	testkit.Eventually(r.t, func() error {
		if names, by := r.list(); by != server || len(names) != n {
			return fmt.Errorf("the %s answered with %v, want the %s with %d", by, names, server, n)
		}
		return nil
	})
}

func (r *replicated) onReplica(statement string) {
	r.t.Helper()
	conn, err := pgx.Connect(r.t.Context(), r.server.URL)
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(r.t.Context()))
	if _, err := conn.Exec(r.t.Context(), statement); err != nil {
		r.t.Fatal(err)
	}
}

// untilReplica waits until a query of the replica returns true.
func (r *replicated) untilReplica(query string) {
	r.t.Helper()
	conn, err := pgx.Connect(r.t.Context(), r.server.URL)
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(r.t.Context()))
	testkit.Eventually(r.t, func() error {
		var yes bool
		if err := conn.QueryRow(r.t.Context(), query).Scan(&yes); err != nil || !yes {
			return fmt.Errorf("%s = %t, %w", query, yes, err)
		}
		return nil
	})
}

// TestREL106Replica is REL-106: the directory is read from a replica while that lags by a few
// seconds at most; from the primary while it lags more, is away, or was promoted. A change is
// read by its writer at once: profiles are read from the primary.
func TestREL106Replica(t *testing.T) {
	t.Parallel()
	r := newReplicated(t)
	r.add("Ann")
	r.wantList("replica", 1)

	r.onReplica(`SELECT pg_wal_replay_pause()`)
	r.add("Ben")
	if names, server := r.list(); server == "replica" && len(names) != 1 {
		t.Errorf("a paused replica answered with %v", names)
	}
	if found, err := r.rows.List(t.Context(), profile.Search{Current: true}, "", 100); err != nil || len(found) != 2 {
		t.Errorf("the list that must not lag has %d names, %v", len(found), err)
	}
	r.wantList("primary", 2) // as soon as it lags too much
	r.onReplica(`SELECT pg_wal_replay_resume()`)
	r.wantList("replica", 2)

	address := r.server.Port
	r.stop()
	r.add("Cleo")
	if names, server := r.list(); server != "primary" || len(names) != 3 { // The first read fails over.
		t.Errorf("without the replica the %s answered with %v, want 3 of the primary", server, names)
	}
	var err error
	r.options.Port = address
	if r.server, err = localserver.StartReplica(t.Context(), r.options, &localserver.Server{URL: r.primary.Config().ConnString()}); err != nil {
		t.Fatal(err)
	}
	r.wantList("replica", 3)

	r.onReplica(`SELECT pg_promote()`)
	r.add("Dan")
	r.wantList("primary", 4)
	var single bool
	if err := r.primary.QueryRow(t.Context(), `SELECT count(*) = 0 FROM pg_stat_replication`).Scan(&single); err != nil || !single {
		t.Errorf("the promoted replica still follows, %v", err)
	}
}

// TestREL106HangingReplica: a read that a replica does not answer goes to the primary, also while
// the replica answers the checks.
func TestREL106HangingReplica(t *testing.T) {
	t.Parallel()
	r := newReplicated(t)
	r.add("Ann")
	r.wantList("replica", 1)
	tx, err := r.primary.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	if _, err := tx.Exec(t.Context(), `LOCK TABLE profiles IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	r.untilReplica(`SELECT count(*) > 0 FROM pg_locks WHERE relation = 'profiles'::regclass AND mode = 'AccessExclusiveLock'`)
	// So the replica keeps the lock when the primary has none any more.
	r.onReplica(`SELECT pg_wal_replay_pause()`)
	r.untilReplica(`SELECT pg_get_wal_replay_pause_state() = 'paused'`)
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Timeout)
	defer cancel()
	before := r.reads("primary")
	if found, err := r.rows.List(ctx, profile.Search{}, "", 100); err != nil || len(found) != 1 {
		t.Errorf("found %d, %v", len(found), err)
	}
	if n := r.reads("primary") - before; n != 1 {
		t.Errorf("the primary was asked %v times", n)
	}
}

// TestInvalidReplicaURL: an invalid URL is refused without its password.
func TestInvalidReplicaURL(t *testing.T) {
	t.Parallel()
	_, err := store.NewReplicas(t.Context(), nil, store.ReplicasConfig{URLs: "postgres://user:topsecret@host:port/x", Conns: 1, Log: testkit.Log(t), Metrics: prometheus.NewRegistry()})
	if err == nil || err.Error() != "DATABASE_REPLICA_URLS: a URL is invalid" {
		t.Errorf("NewReplicas = %v", err)
	}
	none, err := store.NewReplicas(t.Context(), nil, store.ReplicasConfig{URLs: "", Conns: 1, Log: testkit.Log(t), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	none.Close()
}

// TestREL106WriterIsKnownEverywhere: once a change is answered, every instance knows for a while
// that its writer must not read from a replica; so does one that may have missed changes.
func TestREL106WriterIsKnownEverywhere(t *testing.T) {
	t.Parallel()
	db, redisURL := testkit.Database(t), testkit.RedisURL(t)
	here, there := newInstance(t, db, redisURL), newInstance(t, db, redisURL)
	writer := uuid.NewString()
	if !there.ChangedLately(writer) {
		t.Error("an instance that has just begun knows of no change")
	}
	for _, i := range []instance{here, there} {
		testkit.Eventually(t, func() error {
			if i.ChangedLately(writer) {
				return errors.New("changed lately")
			}
			return nil
		})
	}
	testkit.Eventually(t, func() error { // On a busy machine, "lately" can be over before it is asked for.
		if err := here.Changed(t.Context(), version(writer, 2)); err != nil {
			return err
		}
		if h, o := here.ChangedLately(writer), there.ChangedLately(writer); !h || !o {
			return fmt.Errorf("after a change: %t here, %t there", h, o)
		}
		return nil
	})
}
