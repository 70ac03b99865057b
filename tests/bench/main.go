// Bench compares the event path with raw Redis and with Watermill's own parts, auth-service
// with its hash and with a minimal program, the gateway with a bare ReverseProxy and nginx, and
// the profile cache with a constant. Each figure is the median of rounds that alternate between the variants, so a noisy
// machine affects all of them alike: trust the ratios, not the absolute figures. Bench is
// not a test: it fails only if it cannot measure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is shared by all benchmarks.
type bench struct {
	dir      string
	redisURL string
	redis    redis.UniversalClient
	postgres string // URL of the server
	rounds   int
	report   *report
	log      *slog.Logger
	streams  int
}

var benchmarks = []struct {
	name string
	run  func(*bench, context.Context) error
}{
	{"consume", (*bench).consume},
	{"slow-handler", (*bench).slowHandler},
	{"publish", (*bench).publish},
	{"relay", (*bench).relay},
	{"gap", (*bench).gap},
	{"audit", (*bench).audit},
	{"audit-backlog", (*bench).auditBacklog},
	{"login", (*bench).login},
	{"peer", (*bench).peer},
	{"scale", (*bench).scale},
	{"latency", (*bench).latency},
	{"memory", (*bench).memory},
	{"edge", (*bench).edge},
	{"edge-half", (*bench).edgeHalf},
	{"edge-memory", (*bench).edgeMemory},
	{"edge-forged", (*bench).edgeForged},
	{"edge-revoke", (*bench).edgeRevoke},
	{"profile", (*bench).profile},
	{"profile-sizes", (*bench).profileSizes},
	{"profile-miss", (*bench).profileStampede},
	{"realtime", (*bench).realtime},
	{"avatar", (*bench).avatar},
	{"directory", (*bench).directory},
}

func run(ctx context.Context) (err error) {
	if len(os.Args) > 1 && parts[os.Args[1]] != nil {
		return parts[os.Args[1]](ctx, os.Args[2:])
	}
	chosen := flag.String("run", "", "run only the benchmarks whose name matches this regular expression")
	rounds := flag.Int("rounds", 5, "number of rounds of each benchmark")
	profile := flag.String("cpuprofile", "", "write a CPU profile to this file")
	flag.Parse()
	pattern, err := regexp.Compile(*chosen)
	if err != nil {
		return fmt.Errorf("read -run: %w", err)
	}
	if *profile != "" {
		file, err := os.Create(*profile)
		if err != nil {
			return fmt.Errorf("make profile: %w", err)
		}
		defer func() {
			pprof.StopCPUProfile()
			err = errors.Join(err, file.Close())
		}()
		if err := pprof.StartCPUProfile(file); err != nil {
			return fmt.Errorf("make profile: %w", err)
		}
	}
	b := &bench{rounds: *rounds, report: newReport(os.Stdout), log: slog.New(slog.DiscardHandler)}
	stop, err := b.startServers(ctx)
	defer stop()
	if err != nil {
		return err
	}
	for _, one := range benchmarks {
		if !pattern.MatchString(one.name) {
			continue
		}
		if err := one.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
		if err := b.redis.FlushAll(ctx).Err(); err != nil {
			return fmt.Errorf("empty Redis: %w", err)
		}
	}
	return b.report.print()
}

// startServers starts Redis and Postgres. The caller must call stop, also after an error.
func (b *bench) startServers(ctx context.Context) (stop func(), err error) {
	dir, err := os.MkdirTemp("", "headgate-bench-")
	if err != nil {
		return func() {}, fmt.Errorf("make folder: %w", err)
	}
	// If the bench runs as root, Postgres runs as another user, who must reach its folder.
	if err := os.Chmod(dir, 0o711); err != nil {
		return func() {}, fmt.Errorf("make folder: %w", err)
	}
	b.dir = dir
	var servers []*localserver.Server
	stop = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		for _, s := range servers {
			if err := s.Stop(ctx); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
			}
		}
		_ = os.RemoveAll(dir) // What cannot be deleted is in the temporary folder.
	}
	// Durable, as in production: AOF every second, and Postgres with fsync.
	server, err := localserver.StartRedis(ctx, localserver.Options{Dir: filepath.Join(dir, "redis"), Durable: true, Log: io.Discard})
	if err != nil {
		return stop, fmt.Errorf("start Redis: %w", err)
	}
	servers = append(servers, server)
	b.redisURL = server.URL
	if b.redis, err = b.client(); err != nil {
		return stop, err
	}
	// A rewrite of the AOF during a round would be counted for its variant.
	if err := b.redis.ConfigSet(ctx, "auto-aof-rewrite-percentage", "0").Err(); err != nil {
		return stop, fmt.Errorf("configure Redis: %w", err)
	}
	server, err = localserver.StartPostgres(ctx, localserver.Options{Dir: filepath.Join(dir, "postgres"), Durable: true, Log: io.Discard})
	if err != nil {
		return stop, fmt.Errorf("start Postgres: %w", err)
	}
	servers = append(servers, server)
	b.postgres = server.URL
	return stop, nil
}

// client returns a new client, as each process has one.
func (b *bench) client() (redis.UniversalClient, error) {
	client, err := bus.Redis{RedisURL: service.Secret(b.redisURL)}.Open(bus.EventTimeout)
	if err != nil {
		return nil, fmt.Errorf("open Redis: %w", err)
	}
	return client, nil
}

// database makes a database with the schemas and returns its pool and URL.
func (b *bench) database(ctx context.Context, name string, schemas ...postgres.Schema) (*postgres.Pool, string, error) {
	admin, err := pgxpool.New(ctx, b.postgres)
	if err != nil {
		return nil, "", fmt.Errorf("open Postgres: %w", err)
	}
	defer admin.Close()
	for _, query := range []string{`DROP DATABASE IF EXISTS ` + name + ` WITH (FORCE)`, `CREATE DATABASE ` + name} {
		if _, err := admin.Exec(ctx, query); err != nil {
			return nil, "", fmt.Errorf("make database %s: %w", name, err)
		}
	}
	url, err := withDatabase(b.postgres, name)
	if err != nil {
		return nil, "", err
	}
	pool, err := postgres.Open(ctx, postgres.Database{DatabaseURL: service.Secret(url), DatabaseMaxConns: 10}, b.log, schemas...)
	if err != nil {
		return nil, "", fmt.Errorf("open database %s: %w", name, err)
	}
	return pool, url, nil
}

// stream returns the name of an unused stream.
func (b *bench) stream() string {
	b.streams++
	return fmt.Sprintf("bench-%d", b.streams)
}
