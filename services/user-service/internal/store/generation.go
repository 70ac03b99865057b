package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
)

// Generation names the Redis processes and the incarnation of the database that the cache
// works with. It changes when Redis was restarted or replaced, because the new one may
// have an older copy of the entries, and when the database was restored, because versions
// then start again from smaller ones. All instances compute the same value. It is safe for
// concurrent use.
type Generation struct {
	db   *postgres.Pool
	log  *slog.Logger
	wake chan struct{} // has a value when current became unknown

	mu      sync.Mutex
	current string
	last    string   // the latest that was known
	runs    []string // ids of the Redis processes in current, and of those connected since
	changes int      // counts how often current became unknown
}

// generationEvery bounds how long a restored database goes unnoticed. Another Redis is
// noticed with the first connection to it.
const generationEvery = time.Second

// NewGeneration returns a generation that is unknown until Refresh.
func NewGeneration(db *postgres.Pool, log *slog.Logger) *Generation {
	return &Generation{db: db, log: log, wake: make(chan struct{}, 1)}
}

// Current returns the generation, or an empty text while it is not known.
func (g *Generation) Current() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.current
}

// Connected is called with each new connection of the cache before the connection is
// used. If it leads to another Redis process, the generation is unknown until the next
// Refresh, so no entry of the new process is served before. That includes a replica: it may
// be promoted while the connection is open. A Sentinel has no entries.
func (g *Generation) Connected(ctx context.Context, conn *redis.Conn) error {
	info, err := serverInfo(ctx, conn)
	if info["redis_mode"] == "sentinel" {
		return nil
	}
	run := info["run_id"]
	if _, refused := errors.AsType[redis.Error](err); err != nil && !refused {
		return fmt.Errorf("identify redis: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if slices.Contains(g.runs, run) {
		return nil
	}
	g.current, g.runs = "", append(g.runs, run)
	g.changes++
	select {
	case g.wake <- struct{}{}:
	default:
	}
	return nil
}

// Watch returns a runner that keeps the generation up to date.
func (g *Generation) Watch(client redis.UniversalClient) service.Runner {
	return service.RunnerFunc(func(ctx context.Context) error {
		tick := time.NewTicker(generationEvery)
		defer tick.Stop()
		outage := service.NewOutage(service.OutageConfig{
			Log: g.log, Failing: "could not read the cache generation; retrying", Over: "cache generation read again",
			Reported: func(err error) bool { return errors.Is(err, bus.ErrUnavailable) || postgres.Disconnected(err) },
		})
		for ctx.Err() == nil {
			if err := g.Refresh(ctx, client); ctx.Err() == nil {
				outage.Record(ctx, "", err)
			}
			select {
			case <-ctx.Done():
			case <-g.wake:
			case <-tick.C:
			}
		}
		return nil
	})
}

// Refresh determines the generation. If Redis or the database does not answer, the
// generation stays as it is.
func (g *Generation) Refresh(ctx context.Context, client redis.UniversalClient) error {
	for {
		g.mu.Lock()
		changes := g.changes
		g.mu.Unlock()
		runs, err := runIDs(ctx, client)
		if err != nil {
			return fmt.Errorf("identify redis: %w", err)
		}
		var incarnation string
		if err := g.db.QueryRow(ctx, `SELECT `+postgres.IncarnationSQL).Scan(&incarnation); err != nil {
			return fmt.Errorf("identify the database: %w", err)
		}
		if g.set(ctx, changes, runs, incarnation) {
			return nil
		}
	}
}

// set reports whether it has set the generation. It does not if a connection led to
// another Redis process after changes was read.
func (g *Generation) set(ctx context.Context, changes int, runs []string, incarnation string) bool {
	sum := sha256.Sum256([]byte(incarnation + " " + strings.Join(runs, " ")))
	next := hex.EncodeToString(sum[:8])
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.changes != changes {
		return false
	}
	if g.last != next {
		g.log.InfoContext(ctx, "cache generation changed; older entries are ignored", "generation", next)
	}
	g.current, g.last, g.runs = next, next, runs
	return true
}

// runIDs returns the ids of all Redis processes that clients write to, in order.
func runIDs(ctx context.Context, client redis.UniversalClient) ([]string, error) {
	cluster, ok := client.(*redis.ClusterClient)
	if !ok {
		run, err := runID(ctx, client)
		return []string{run}, err
	}
	var mu sync.Mutex
	var runs []string
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		run, err := runID(ctx, node)
		mu.Lock()
		defer mu.Unlock()
		runs = append(runs, run)
		return err
	})
	slices.Sort(runs)
	return runs, err
}

var errNoRunID = errors.New("INFO has no run_id")

// runID returns the id that a Redis process gives itself when it starts.
func runID(ctx context.Context, client infoer) (string, error) {
	info, err := serverInfo(ctx, client)
	return info["run_id"], err
}

type infoer interface {
	Info(ctx context.Context, sections ...string) *redis.StringCmd
}

// serverInfo returns the fields of the section server of INFO.
func serverInfo(ctx context.Context, client infoer) (map[string]string, error) {
	text, err := client.Info(ctx, "server").Result()
	if err != nil {
		return nil, err
	}
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		if field, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[field] = value
		}
	}
	if fields["run_id"] == "" {
		return nil, errNoRunID
	}
	return fields, nil
}
