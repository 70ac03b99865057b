package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
)

// Replicas are streaming replicas of the database, for reads that may be a few seconds old. A
// reader who may have written what is read stays on the primary. A replica is used while it is
// known to have everything that the primary had maxLag ago, whatever the clocks of the servers
// say: its position in the log is compared with earlier positions of the primary. They are safe
// for concurrent use.
type Replicas struct {
	primary *postgres.Pool
	log     *slog.Logger
	all     []*replica
	next    atomic.Uint32
	usable  prometheus.Gauge
	reads   *prometheus.CounterVec
}

const (
	maxLag         = 5 * time.Second
	replicaEvery   = time.Second
	replicaTimeout = time.Second // of a check
	// replicaReadTimeout is how long a read waits for a replica, which may hang, before it goes to
	// the primary.
	replicaReadTimeout = 2 * time.Second
)

// replica is one of them.
type replica struct {
	name string // its host and port
	pool *pgxpool.Pool

	mu    sync.Mutex
	fresh time.Time // it has everything that the primary had then
}

// ReplicasConfig is what Replicas need.
type ReplicasConfig struct {
	URLs    service.Secret // comma-separated; none if it is empty
	Conns   int32          // to each replica
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// NewReplicas returns the replicas of primary. It does not wait for them: a replica that is
// away is not used. The caller closes them.
func NewReplicas(ctx context.Context, primary *postgres.Pool, c ReplicasConfig) (*Replicas, error) {
	r := &Replicas{
		primary: primary, log: c.Log,
		usable: prometheus.NewGauge(prometheus.GaugeOpts{Name: "headgate_database_replicas_usable", Help: "Replicas of the database that are up and lag by at most five seconds."}),
		reads:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "headgate_directory_reads_total", Help: "Reads of the directory, by the server that answered: replica or primary."}, []string{"server"}),
	}
	c.Metrics.MustRegister(r.usable, r.reads)
	for url := range strings.SplitSeq(c.URLs.Reveal(), ",") {
		if url = strings.TrimSpace(url); url == "" {
			continue
		}
		cfg, err := pgxpool.ParseConfig(url)
		if err != nil {
			r.Close()
			return nil, errors.New("DATABASE_REPLICA_URLS: a URL is invalid") // The error may quote it.
		}
		cfg.MaxConns = c.Conns
		cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe // It may be behind a pooler.
		pool, err := pgxpool.NewWithConfig(ctx, cfg)
		if err != nil {
			r.Close()
			return nil, fmt.Errorf("open replica: %w", err)
		}
		r.all = append(r.all, &replica{name: fmt.Sprintf("%s:%d", cfg.ConnConfig.Host, cfg.ConnConfig.Port), pool: pool})
	}
	return r, nil
}

// Close closes the connections.
func (r *Replicas) Close() {
	for _, one := range r.all {
		one.pool.Close()
	}
}

// Run checks the replicas until ctx ends.
func (r *Replicas) Run(ctx context.Context) error {
	if len(r.all) == 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(replicaEvery)
	defer tick.Stop()
	var samples []sample
	for {
		samples = r.check(ctx, samples)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// sample is a position that the primary's log had at a time.
type sample struct {
	at       time.Time
	position position
}

// check adds a sample and compares all replicas with the samples. It returns those of the last
// maxLag.
func (r *Replicas) check(ctx context.Context, samples []sample) []sample {
	ctx, cancel := context.WithTimeout(ctx, replicaTimeout)
	defer cancel()
	at := time.Now() // The primary may have more when it answers.
	if now, err := positionOf(ctx, r.primary, `SELECT pg_current_wal_lsn()::text`); err == nil {
		samples = append(samples, sample{at, now})
	}
	for len(samples) > 0 && time.Since(samples[0].at) > maxLag {
		samples = samples[1:]
	}
	var checks sync.WaitGroup
	for _, one := range r.all {
		checks.Go(func() { r.checkOne(ctx, one, samples) })
	}
	checks.Wait()
	usable := 0
	for _, one := range r.all {
		if one.usable() {
			usable++
		}
	}
	r.usable.Set(float64(usable))
	return samples
}

func (r *Replicas) checkOne(ctx context.Context, one *replica, samples []sample) {
	before := one.usable()
	replayed, err := positionOf(ctx, one.pool, `SELECT pg_last_wal_replay_lsn()::text WHERE pg_is_in_recovery()`)
	if err == nil {
		for _, s := range samples {
			if replayed >= s.position {
				one.refresh(s.at)
			}
		}
	}
	after := one.usable()
	switch {
	case after && !before:
		r.log.InfoContext(ctx, "replica of the database is used", "replica", one.name)
	case before && !after && err != nil:
		r.log.WarnContext(ctx, "replica of the database is away; reading from the primary", "replica", one.name, "error", err.Error())
	case before && !after:
		r.log.WarnContext(ctx, "replica of the database lags; reading from the primary", "replica", one.name)
	}
}

func (one *replica) refresh(at time.Time) {
	one.mu.Lock()
	defer one.mu.Unlock()
	if at.After(one.fresh) {
		one.fresh = at
	}
}

// forget keeps the replica from being used until the next check.
func (one *replica) forget() {
	one.mu.Lock()
	defer one.mu.Unlock()
	one.fresh = time.Time{}
}

func (one *replica) usable() bool {
	one.mu.Lock()
	defer one.mu.Unlock()
	return time.Since(one.fresh) <= maxLag
}

// read calls f with a replica, if what it reads may lag and there is one, or with the primary.
func (s *Store) read(ctx context.Context, mayLag bool, f func(ctx context.Context, db querier) error) error {
	switch {
	case s.Replicas == nil:
		return f(ctx, s.db)
	case !mayLag:
		return s.Replicas.readPrimary(ctx, f)
	}
	return s.Replicas.read(ctx, f)
}

// read calls f with a replica, or with the primary if none is usable or the replica fails.
func (r *Replicas) read(ctx context.Context, f func(ctx context.Context, db querier) error) error {
	for range r.all {
		one := r.all[int(r.next.Add(1))%len(r.all)]
		if !one.usable() {
			continue
		}
		err := one.read(ctx, f)
		if err == nil {
			r.reads.WithLabelValues("replica").Inc()
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		one.forget()
		r.log.WarnContext(ctx, "replica of the database failed; reading from the primary", "replica", one.name, "error", err.Error())
	}
	return r.readPrimary(ctx, f)
}

func (r *Replicas) readPrimary(ctx context.Context, f func(ctx context.Context, db querier) error) error {
	r.reads.WithLabelValues("primary").Inc()
	return f(ctx, r.primary)
}

func (one *replica) read(ctx context.Context, f func(ctx context.Context, db querier) error) error {
	ctx, cancel := context.WithTimeout(ctx, replicaReadTimeout)
	defer cancel()
	return f(ctx, one.pool)
}

// querier is the primary or a replica.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// position is a position in the write-ahead log (pg_lsn).
type position uint64

func positionOf(ctx context.Context, db querier, query string) (position, error) {
	var text string
	if err := db.QueryRow(ctx, query).Scan(&text); err != nil {
		return 0, fmt.Errorf("read position in the log: %w", err)
	}
	var high, low uint32
	if _, err := fmt.Sscanf(text, "%X/%X", &high, &low); err != nil {
		return 0, fmt.Errorf("read position in the log: %w", err)
	}
	return position(uint64(high)<<32 | uint64(low)), nil
}
