package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
)

// The streams and the group that must read each.
var streams = map[string]string{
	"email-events": emailService, "audit-events": auditService, "user-events": userService,
}

// Services that have an outbox, and those that have dead letters, by database.
var (
	producers = []string{"auth", "user", "email"}
	consumers = []string{"email", "user", "audit"}
)

// consumerServices are the services that read a stream; databases has the database of each.
var (
	consumerServices = []string{auditService, emailService, userService}
	databases        = map[string]string{authService: "auth", userService: "user", emailService: "email", auditService: "audit"}
)

// observer reads the stores directly.
type observer struct {
	databases map[string]*pgxpool.Pool
	redis     *redis.Client
}

const queryTimeout = 3 * time.Second

// discardLog keeps go-redis from logging errors that it also returns.
type discardLog struct{}

func (discardLog) Printf(context.Context, string, ...any) {}

func newObserver(ctx context.Context, s *stack) (*observer, error) {
	options, err := redis.ParseURL(s.redis.url)
	if err != nil {
		return nil, fmt.Errorf("observe redis: %w", err)
	}
	options.ContextTimeoutEnabled, options.MaxRetries, options.DisableIdentity = true, -1, true
	options.ReadTimeout = queryTimeout
	o := &observer{databases: map[string]*pgxpool.Pool{}, redis: redis.NewClient(options)}
	for name, db := range s.databases {
		cfg, err := pgxpool.ParseConfig(db.url)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("observe %s: %w", name, err), o.close())
		}
		cfg.MaxConns, cfg.ConnConfig.ConnectTimeout = 4, queryTimeout
		if o.databases[name], err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
			return nil, errors.Join(fmt.Errorf("observe %s: %w", name, err), o.close())
		}
	}
	return o, nil
}

func (o *observer) close() error {
	for _, pool := range o.databases {
		pool.Close()
	}
	return o.redis.Close()
}

// count returns the number that a query returns.
func (o *observer) count(ctx context.Context, database, query string, args ...any) (n int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	if err := o.databases[database].QueryRow(ctx, query, args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("count in %s: %w", database, err)
	}
	return n, nil
}

// backlog returns how many events wait to be published.
func (o *observer) backlog(ctx context.Context, database string) (int64, error) {
	return o.count(ctx, database, `SELECT count(*) FROM outbox WHERE published_at IS NULL`)
}

// unfinishedMails returns how many mails are neither sent nor failed.
func (o *observer) unfinishedMails(ctx context.Context) (int64, error) {
	return o.count(ctx, "email", `SELECT count(*) FROM messages WHERE status NOT IN ('sent', 'failed', 'suppressed')`)
}

// failing returns how many mails had a failed attempt since then and will be retried.
func (o *observer) failing(ctx context.Context, since time.Time) (int64, error) {
	return o.count(ctx, "email", `
		SELECT count(*) FROM messages
		WHERE status NOT IN ('sent', 'failed') AND last_error <> '' AND updated_at >= $1`, since)
}

// stuck returns how many events wait for longer than in a healthy system.
func (o *observer) stuck(ctx context.Context, database string) (int64, error) {
	return o.count(ctx, database, `
		SELECT count(*) FROM outbox
		WHERE published_at IS NULL AND created_at < clock_timestamp() - interval '500 ms'`)
}

// blocked returns how many statements that match the pattern wait for a lock.
func (o *observer) blocked(ctx context.Context, database, pattern string) (int64, error) {
	return o.count(ctx, database, `
		SELECT count(*) FROM pg_stat_activity
		WHERE wait_event_type = 'Lock' AND query ~* $1 AND pid <> pg_backend_pid()`, pattern)
}

// waiting is the number of entries that a group has not handled: delivered ones are not
// acknowledged, unread ones are not delivered.
type waiting struct{ delivered, unread int64 }

func (w waiting) total() int64 { return w.delivered + w.unread }

// group returns what the group of a service has not handled: nothing if there is no group.
func (o *observer) group(ctx context.Context, service string) (waiting, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	var sum waiting
	for stream, reader := range streams {
		if reader != service {
			continue
		}
		info, err := o.redis.XInfoStream(ctx, stream).Result()
		if err != nil {
			return sum, fmt.Errorf("inspect %s: %w", stream, err)
		}
		groups, err := o.redis.XInfoGroups(ctx, stream).Result()
		if err != nil {
			return sum, fmt.Errorf("inspect the groups of %s: %w", stream, err)
		}
		for _, g := range groups {
			if g.Name != reader {
				continue
			}
			sum.delivered += g.Pending
			switch {
			case g.Lag > 0:
				sum.unread += g.Lag
			case g.Lag < 0 && g.LastDeliveredID != info.LastGeneratedID:
				sum.unread++ // Redis cannot tell how many.
			}
		}
	}
	return sum, nil
}

// idle says whether no work is left; if not, it returns what is.
func (o *observer) idle(ctx context.Context) (bool, string) {
	return o.finished(ctx, producers, consumerServices)
}

// noMailLeft says whether no mail has to be sent, and every sent one is published.
func (o *observer) noMailLeft(ctx context.Context) (bool, string) {
	return o.finished(ctx, []string{databases[authService], databases[emailService]}, []string{emailService})
}

// finished says whether the outboxes of the databases are empty, the services have read
// everything, and every mail is sent or has failed; if not, it returns what is left.
func (o *observer) finished(ctx context.Context, outboxes, services []string) (bool, string) {
	for _, database := range outboxes {
		if n, err := o.backlog(ctx, database); err != nil || n > 0 {
			return false, fmt.Sprintf("%d events in the outbox of %s (%v)", n, database, err)
		}
	}
	for _, service := range services {
		if w, err := o.group(ctx, service); err != nil || w.total() > 0 {
			return false, fmt.Sprintf("group %s: %d pending, %d unread (%v)", service, w.delivered, w.unread, err)
		}
	}
	if n, err := o.unfinishedMails(ctx); err != nil || n > 0 {
		return false, fmt.Sprintf("%d mails neither sent nor failed (%v)", n, err)
	}
	return true, ""
}

// recorded returns the requests whose sign-up is in the audit log.
func (o *observer) recorded(ctx context.Context, ids []string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	rows, err := o.databases["audit"].Query(ctx, `SELECT request_id FROM events WHERE type = 'user.signed_up' AND request_id = ANY($1)`, ids)
	if err != nil {
		return nil, fmt.Errorf("search the audit log: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("search the audit log: %w", err)
	}
	return found, nil
}

// auditRows returns the whole audit log.
func (o *observer) auditRows(ctx context.Context) ([]record, error) {
	rows, err := o.databases["audit"].Query(ctx, `SELECT type, request_id FROM events`)
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[record])
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	return found, nil
}

// users returns the address of every account.
func (o *observer) users(ctx context.Context) ([]string, error) {
	return o.addresses(ctx, "auth", `SELECT email FROM accounts`)
}

// profiles returns the address in every profile.
func (o *observer) profiles(ctx context.Context) ([]string, error) {
	return o.addresses(ctx, "user", `SELECT email FROM profiles`)
}

func (o *observer) addresses(ctx context.Context, database, query string) ([]string, error) {
	rows, err := o.databases[database].Query(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("read the addresses of %s: %w", database, err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read the addresses of %s: %w", database, err)
	}
	return found, nil
}

// deadLetters returns the dead letters of every service.
func (o *observer) deadLetters(ctx context.Context) ([]deadLetter, error) {
	var all []deadLetter
	for _, database := range consumers {
		rows, err := o.databases[database].Query(ctx, `
			SELECT $1::text, stream, entry_id, COALESCE(type, ''), reason, payload, first_failed_at
			FROM dead_letters`, database)
		if err != nil {
			return nil, fmt.Errorf("read the dead letters of %s: %w", database, err)
		}
		found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d deadLetter, err error) {
			err = row.Scan(&d.Service, &d.Stream, &d.Entry, &d.Type, &d.Reason, &d.Payload, &d.At)
			return d, err
		})
		if err != nil {
			return nil, fmt.Errorf("read the dead letters of %s: %w", database, err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// tableLock blocks statements that write to a table.
type tableLock struct {
	conn *pgx.Conn
}

// lock locks the table against writers, but not against readers or FOR UPDATE.
func (o *observer) lock(ctx context.Context, database, table string) (*tableLock, error) {
	conn, err := pgx.ConnectConfig(ctx, o.databases[database].Config().ConnConfig)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", table, err)
	}
	_, err = conn.Exec(ctx, `BEGIN; SET LOCAL lock_timeout = '3s'; LOCK TABLE `+table+` IN SHARE MODE`)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", table, err), conn.Close(ctx))
	}
	return &tableLock{conn: conn}, nil
}

// release ends the lock.
func (l *tableLock) release() error {
	ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
	defer cancel()
	if err := l.conn.Close(ctx); err != nil {
		return fmt.Errorf("release lock: %w", err)
	}
	return nil
}

// abort ends the statements that match the pattern and wait for a lock: Postgres would
// still execute the statement of a dead client.
func (o *observer) abort(ctx context.Context, database, pattern string) error {
	_, err := o.count(ctx, database, `
		SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE wait_event_type = 'Lock' AND query ~* $1 AND pid <> pg_backend_pid()`, pattern)
	return err
}
