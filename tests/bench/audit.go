package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/postgres"
)

const (
	recorded   = 50_000
	auditGroup = "audit-service"
)

// audit compares audit-service with a minimal loop that stores the same rows: read 500,
// insert them in one statement, acknowledge.
func (b *bench) audit(ctx context.Context) error {
	binary, err := b.build(ctx, "services/audit-service")
	if err != nil {
		return err
	}
	instances := func(n int) func(context.Context) (float64, error) {
		return func(ctx context.Context) (float64, error) {
			return b.auditRound(ctx, recorded, b.auditService(binary, n))
		}
	}
	medians, err := b.alternate(ctx,
		variant{"loop", func(ctx context.Context) (float64, error) { return b.auditRound(ctx, recorded, b.auditLoop) }},
		variant{"one", instances(1)},
		variant{"three", instances(3)},
	)
	if err != nil {
		return err
	}
	b.report.figure("audit", "XREADGROUP 500, one INSERT, XACK by hand", perSecond(medians["loop"]))
	b.report.atLeast("audit", "audit-service, 1 process / that", perSecond(medians["one"]), medians["one"]/medians["loop"], 0.8)
	b.report.compared("audit", "audit-service, 3 processes / 1", perSecond(medians["three"]), medians["three"]/medians["one"])
	return nil
}

// auditBacklog measures the cost of an event with a growing backlog.
func (b *bench) auditBacklog(ctx context.Context) error {
	binary, err := b.build(ctx, "services/audit-service")
	if err != nil {
		return err
	}
	for _, n := range []int{1_000, 10_000, 100_000, 1_000_000} {
		rate, err := b.auditRound(ctx, n, b.auditService(binary, 1))
		if err != nil {
			return err
		}
		b.report.figure("audit-backlog", fmt.Sprintf("audit-service, %d entries wait", n), fmt.Sprintf("%.1f µs/event", 1e6/rate))
	}
	return nil
}

// auditRound measures work, which must store n events of the stream in the table. It counts
// from the first row to the last, without the start of a process.
func (b *bench) auditRound(ctx context.Context, n int, work func(ctx context.Context, url string, n int) error) (float64, error) {
	db, url, err := b.auditDatabase(ctx)
	if err != nil {
		return 0, err
	}
	defer db.Close()
	if err := b.fillAudit(ctx, n); err != nil {
		return 0, err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- work(running, url, n) }()
	var first time.Time
	err = await(ctx, func() (bool, error) {
		var rows int
		err := db.QueryRow(ctx, `SELECT count(*) FROM (SELECT FROM events LIMIT 1) AS one`).Scan(&rows)
		first = time.Now()
		return rows > 0, err
	})
	if err != nil {
		return 0, errors.Join(err, <-ended)
	}
	err = await(ctx, func() (bool, error) {
		pending, err := b.redis.XInfoGroups(ctx, string(event.Audit)).Result()
		return err == nil && len(pending) == 1 && pending[0].Lag == 0 && pending[0].Pending == 0, err
	})
	took := time.Since(first)
	stop()
	err = errors.Join(err, <-ended)
	var rows int
	if err := db.QueryRow(ctx, `SELECT count(*) FROM events`).Scan(&rows); err != nil || rows != n {
		return 0, errors.Join(err, fmt.Errorf("%d rows, want %d", rows, n))
	}
	return float64(n) / took.Seconds(), err
}

// auditDatabase creates a database with the tables of audit-service.
func (b *bench) auditDatabase(ctx context.Context) (*postgres.Pool, string, error) {
	db, url, err := b.database(ctx, "bench_audit")
	if err != nil {
		return nil, "", err
	}
	env, err := b.auditEnvironment(ctx, url, "migrates")
	var migrates process
	if err == nil {
		migrates, err = b.start(ctx, "", func(addr string) *exec.Cmd {
			cmd := exec.CommandContext(ctx, filepath.Join(b.dir, "audit-service"))
			cmd.Env = slices.Concat(env, []string{"HTTP_ADDR=" + addr})
			return cmd
		})
	}
	if err != nil {
		db.Close()
		return nil, "", fmt.Errorf("make the tables: %w", err)
	}
	migrates.stop()
	return db, url, nil
}

func (b *bench) auditEnvironment(ctx context.Context, url, instance string) ([]string, error) {
	env := append(os.Environ(), "ENV=development", "LOG_LEVEL=warn", "DRAIN_DELAY=0s", "LOCAL_DIR="+b.dir, "INSTANCE_ID="+instance,
		"DATABASE_URL="+url, "REDIS_URL="+b.redisURL, "JWKS_URL=http://127.0.0.1:1/")
	for _, name := range []string{"HTTP_ADDR", "OPS_ADDR"} {
		port, err := localserver.FreePort(ctx)
		if err != nil {
			return nil, fmt.Errorf("find a port: %w", err)
		}
		env = append(env, fmt.Sprintf("%s=127.0.0.1:%d", name, port))
	}
	return env, nil
}

// fillAudit adds n events to an empty stream.
func (b *bench) fillAudit(ctx context.Context, n int) error {
	if err := b.redis.Del(ctx, string(event.Audit)).Err(); err != nil {
		return fmt.Errorf("empty the stream: %w", err)
	}
	signer, err := b.signer("auth-service")
	if err != nil {
		return err
	}
	publisher := bus.NewSigningPublisher(b.redis, signer)
	for seq := 0; seq < n; {
		batch := make([]*message.Message, min(500, n-seq))
		for i := range batch {
			seq++
			e := event.New(event.WithOrigin(ctx, event.Origin{
				Actor: event.Actor{Type: "user", ID: uuid.NewString()}, IP: "192.0.2.7", UserAgent: "Mozilla/5.0 (X11; Linux x86_64)", RequestID: uuid.NewString(),
			}), time.Now(), uuid.NewString(), event.UserLoggedIn{SessionID: uuid.NewString()})
			id, err := uuid.NewV7()
			if err != nil {
				return fmt.Errorf("make id: %w", err)
			}
			e.ID, e.Producer, e.ProducerSeq = id.String(), "auth-service", int64(seq)
			data, err := json.Marshal(e)
			if err != nil {
				return fmt.Errorf("encode event: %w", err)
			}
			batch[i] = message.NewMessageWithContext(ctx, e.ID, data)
			batch[i].Metadata.Set("name", e.Name)
		}
		if err := publisher.Publish(string(event.Audit), batch...); err != nil {
			return err
		}
	}
	if err := b.redis.XGroupCreate(ctx, string(event.Audit), auditGroup, "0").Err(); err != nil {
		return fmt.Errorf("make group: %w", err)
	}
	return nil
}

// auditService runs n processes until ctx ends.
func (b *bench) auditService(binary string, n int) func(context.Context, string, int) error {
	return func(ctx context.Context, url string, _ int) error {
		ended := make(chan error, n)
		for i := range n {
			cmd := exec.CommandContext(ctx, binary)
			cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
			cmd.WaitDelay = 30 * time.Second
			var err error
			if cmd.Env, err = b.auditEnvironment(ctx, url, fmt.Sprint("audit-", i)); err != nil {
				return err
			}
			var output strings.Builder
			cmd.Stdout, cmd.Stderr = &output, &output
			if err := cmd.Start(); err != nil {
				return fmt.Errorf("start audit-service: %w", err)
			}
			go func() {
				err := cmd.Wait()
				if err != nil && ctx.Err() == nil {
					err = fmt.Errorf("audit-service: %w\n%s", err, &output)
				}
				ended <- err
			}()
		}
		var errs []error
		for range n {
			if err := <-ended; ctx.Err() == nil {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	}
}

const insertByHand = `
	INSERT INTO events (id, type, version, occurred_at, producer, producer_seq, actor_type, actor_id, subject_id, outcome,
		ip, user_agent, request_id, correlation_id, causation_id, data)
	SELECT * FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::timestamptz[], $5::text[], $6::bigint[], $7::text[], $8::text[],
		$9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::jsonb[])
	ON CONFLICT (id) DO NOTHING`

// auditLoop is the minimal loop: for one process, without handling of invalid entries.
func (b *bench) auditLoop(ctx context.Context, url string, n int) error {
	db, err := pgxpool.New(ctx, url)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer db.Close()
	for done := 0; done < n; {
		streams, err := b.redis.XReadGroup(ctx, &redis.XReadGroupArgs{
			Group: auditGroup, Consumer: "loop", Streams: []string{string(event.Audit), ">"}, Count: 500,
		}).Result()
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		entries := streams[0].Messages
		ids := make([]string, len(entries))
		versions, times, seqs := make([]int, len(entries)), make([]time.Time, len(entries)), make([]int64, len(entries))
		var texts [13][]string
		for i, entry := range entries {
			ids[i] = entry.ID
			m, err := redisstream.DefaultMarshallerUnmarshaller{}.Unmarshal(entry.Values)
			if err != nil {
				return fmt.Errorf("decode entry: %w", err)
			}
			var e event.Event
			if err := json.Unmarshal(m.Payload, &e); err != nil {
				return fmt.Errorf("decode event: %w", err)
			}
			versions[i], times[i], seqs[i] = e.Version(), e.OccurredAt, e.ProducerSeq
			for column, value := range [...]string{
				e.ID, e.Type(), e.Producer, e.Actor.Type, e.Actor.ID, e.Subject, string(e.Outcome),
				e.IP, e.UserAgent, e.RequestID, e.CorrelationID, e.CausationID, string(e.Data),
			} {
				texts[column] = append(texts[column], value)
			}
		}
		_, err = db.Exec(ctx, insertByHand, texts[0], texts[1], versions, times, texts[2], seqs, texts[3], texts[4],
			texts[5], texts[6], texts[7], texts[8], texts[9], texts[10], texts[11], texts[12])
		if err != nil {
			return fmt.Errorf("insert: %w", err)
		}
		if err := b.redis.XAck(ctx, string(event.Audit), auditGroup, ids...).Err(); err != nil {
			return fmt.Errorf("acknowledge: %w", err)
		}
		done += len(entries)
	}
	<-ctx.Done()
	return nil
}
