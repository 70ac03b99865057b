package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// lockedRows is how many events wait for a lock.
const lockedRows = 10

// rowOf is, for each consumer, a query that inserts the row which an event makes, with other
// content. While the transaction is open, a consumer that inserts the row has to wait.
var rowOf = map[string]string{
	auditService: `
		INSERT INTO events
		SELECT (jsonb_populate_record(null::events, to_jsonb(e) || jsonb_build_object('id', $1::text))).*
		FROM (SELECT * FROM events LIMIT 1) e`,
	emailService: `
		INSERT INTO messages
		SELECT (jsonb_populate_record(null::messages, to_jsonb(m) || jsonb_build_object('id', gen_random_uuid(), 'event_id', $1::text))).*
		FROM (SELECT * FROM messages ORDER BY id DESC LIMIT 1) m`,
}

// lockRows makes the next events of a consumer wait for a lock.
func lockRows(service string) func(context.Context, *phase) error {
	return func(ctx context.Context, p *phase) (err error) {
		for _, one := range p.stack.of(service) {
			if err := one.signal(syscall.SIGSTOP); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, one.signal(syscall.SIGCONT)) }()
		}
		var ids []string
		err = eventually(ctx, 2*injectTimeout, service+" has entries to read", func() (_ bool, err error) {
			ids, err = p.unreadEvents(ctx, service)
			return len(ids) >= lockedRows, err
		})
		if err != nil {
			return err
		}
		database := databases[service]
		conn, err := pgx.ConnectConfig(ctx, p.observer.databases[database].Config().ConnConfig)
		if err != nil {
			return fmt.Errorf("lock rows of %s: %w", service, err)
		}
		lock := &tableLock{conn: conn}
		p.undo = lock.release
		if _, err := conn.Exec(ctx, `BEGIN`); err != nil {
			return fmt.Errorf("lock rows of %s: %w", service, err)
		}
		for _, id := range ids[:lockedRows] {
			if _, err := conn.Exec(ctx, rowOf[service], id); err != nil {
				return fmt.Errorf("lock rows of %s: %w", service, err)
			}
			p.hits++
		}
		return nil
	}
}

// unreadEvents returns the ids of the events that the group of a service has not read.
func (p *phase) unreadEvents(ctx context.Context, service string) ([]string, error) {
	stream := topicOf[service]
	groups, err := p.observer.redis.XInfoGroups(ctx, stream).Result()
	if err != nil {
		return nil, fmt.Errorf("inspect the groups of %s: %w", stream, err)
	}
	for _, g := range groups {
		if g.Name != service {
			continue
		}
		entries, err := p.observer.redis.XRangeN(ctx, stream, "("+g.LastDeliveredID, "+", 2*lockedRows).Result()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", stream, err)
		}
		var ids []string
		for _, entry := range entries {
			var e struct{ ID string }
			if text, _ := entry.Values["payload"].(string); json.Unmarshal([]byte(text), &e) == nil && e.ID != "" {
				ids = append(ids, e.ID)
			}
		}
		return ids, nil
	}
	return nil, fmt.Errorf("%s has no group %s", stream, service)
}
