package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// limits are the settings that every transaction has. Postgres itself takes them at the
// start of a session. A pooler refuses or ignores them there, and a SET would reach only one
// of the sessions behind it, so behind a pooler each transaction sets them for itself.
var limits = map[string]string{
	"statement_timeout":                   statementTimeout,
	"lock_timeout":                        lockTimeout,
	"idle_in_transaction_session_timeout": idleTimeout,
	"timezone":                            "UTC",
}

// setLimits goes before a statement without parameters, in the same message, which is one
// transaction. selectLimits goes before the statements of a batch.
var (
	setLimits    = eachLimit("", "SET LOCAL %s = '%s'", "; ") + "; "
	selectLimits = eachLimit("SELECT ", "set_config('%s', '%s', true)", ", ")
)

func eachLimit(begin, format, separator string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		parts = append(parts, fmt.Sprintf(format, name, limits[name]))
	}
	return begin + strings.Join(parts, separator)
}

// beginWithLimits returns the statements that begin a transaction with the options.
func beginWithLimits(options pgx.TxOptions) string {
	begin := []string{"BEGIN"}
	if options.IsoLevel != "" {
		begin = append(begin, "ISOLATION LEVEL", string(options.IsoLevel))
	}
	begin = append(begin, string(options.AccessMode), string(options.DeferrableMode))
	return strings.Join(begin, " ") + "; " + setLimits
}

// sendLimited sends a batch with the limits, as one transaction. The results are those of
// the batch alone.
func (p *Pool) sendLimited(ctx context.Context, batch *pgx.Batch) pgx.BatchResults {
	limited := queued(selectLimits, nil)
	limited.QueuedQueries = append(limited.QueuedQueries, batch.QueuedQueries...)
	results := p.Pool.SendBatch(ctx, limited)
	_, _ = results.Exec() // The later results return its error, too.
	return results
}

// limitedRows is the only result of a batch. Closing it ends the transaction.
type limitedRows struct {
	pgx.Rows
	results pgx.BatchResults
	closed  bool
	err     error // of the end of the transaction
}

// Close implements pgx.Rows.
func (r *limitedRows) Close() {
	r.Rows.Close()
	if !r.closed {
		r.closed = true
		r.err = r.results.Close()
	}
}

// Next implements pgx.Rows.
func (r *limitedRows) Next() bool {
	more := r.Rows.Next()
	if !more {
		r.Close()
	}
	return more
}

// Scan implements pgx.Rows.
func (r *limitedRows) Scan(dest ...any) error {
	err := r.Rows.Scan(dest...)
	if err != nil {
		r.Close()
	}
	return err
}

// Err implements pgx.Rows.
func (r *limitedRows) Err() error {
	if err := r.Rows.Err(); err != nil {
		return err
	}
	return r.err
}

// isPooler reports whether cfg, which has the limits as parameters of the session, leads to
// a pooler: it refuses or ignores the parameters, or the process of Postgres is not the one
// that it said at the start of the session.
func isPooler(ctx context.Context, cfg *pgx.ConnConfig) (bool, error) {
	untraced := cfg.Copy()
	untraced.Tracer = nil
	conn, err := pgx.ConnectConfig(ctx, untraced)
	if tracer, ok := cfg.Tracer.(pgx.ConnectTracer); ok && !refusesParameters(err) { // What a pooler refuses is no outage.
		tracer.TraceConnectEnd(ctx, pgx.TraceConnectEndData{Err: err})
	}
	if refusesParameters(err) {
		bare := cfg.Copy()
		removeLimits(bare)
		if conn, err = pgx.ConnectConfig(ctx, bare); err == nil {
			return true, conn.Close(ctx)
		}
	}
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var pid uint32
	var timeout string
	const query = `SELECT pg_backend_pid()::bigint, current_setting('statement_timeout')`
	if err := conn.QueryRow(ctx, query, pgx.QueryExecModeSimpleProtocol).Scan(&pid, &timeout); err != nil {
		return false, fmt.Errorf("look for a pooler: %w", err)
	}
	return pid != conn.PgConn().PID() || timeout != statementTimeout, nil
}

// refusesParameters reports whether a pooler may have refused to start a session because of
// its parameters. PgBouncer says no more than that the protocol was violated.
func refusesParameters(err error) bool {
	fault, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.Contains([]string{"08", "0A", "22", "42"}, fault.Code[:min(2, len(fault.Code))])
}

func removeLimits(cfg *pgx.ConnConfig) {
	for name := range limits {
		delete(cfg.RuntimeParams, name)
	}
}
