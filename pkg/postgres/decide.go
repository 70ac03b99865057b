package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const rollbackTimeout = 2 * time.Second

// Decide runs a transaction in two round trips where pgx.BeginFunc takes four: the
// statements of read go with BEGIN, and those that decide queues go with COMMIT.
// Nothing is changed if any of them, or decide, fails. If the schema has changed since a
// statement was prepared, decide runs a second time.
func Decide(ctx context.Context, db *Pool, read *pgx.Batch, decide func(q Querier, write *pgx.Batch) error) error {
	return db.Again(func() error { return db.decide(ctx, Repeatable(read), decide) })
}

func (p *Pool) decide(ctx context.Context, read *pgx.Batch, decide func(q Querier, write *pgx.Batch) error) (err error) {
	conn, err := p.Acquire(ctx) //nolint:forbidigo // Decide repeats it.
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer conn.Release()
	defer func() {
		if err != nil {
			rollback(ctx, conn)
		}
	}()
	begin := &pgx.Batch{}
	begin.Queue("BEGIN")
	if p.pooled {
		begin.Queue(selectLimits)
	}
	begin.QueuedQueries = append(begin.QueuedQueries, read.QueuedQueries...)
	if err := conn.SendBatch(ctx, begin).Close(); err != nil {
		return err
	}
	write := &pgx.Batch{}
	if err := decide(conn, write); err != nil {
		return err
	}
	write.Queue("COMMIT").Exec(func(tag pgconn.CommandTag) error {
		if tag.String() != "COMMIT" {
			return pgx.ErrTxCommitRollback
		}
		return nil
	})
	return conn.SendBatch(ctx, write).Close()
}

// rollback makes the connection usable again. If that fails, the pool closes it.
func rollback(ctx context.Context, conn *pgxpool.Conn) {
	if conn.Conn().IsClosed() || conn.Conn().PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	_, _ = conn.Exec(ctx, "ROLLBACK") // If that fails, closing does the same.
}
