package postgres

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Pool is a pool of connections to a database, or to a pooler in front of it. A statement
// is repeated once if the schema has changed since the pool prepared it: Exec, Query,
// QueryRow and SendBatch repeat what they send, Transact and Decide the whole transaction.
// Begin and Acquire repeat nothing.
//
// Behind a pooler, the connection to Postgres changes from one transaction to the next, so
// the pool keeps nothing in a session: each transaction sets its own limits, and statements
// have no name. Acquire is for Decide alone, because its statements have no limits.
type Pool struct {
	*pgxpool.Pool

	pooled  bool
	session *pgx.ConnConfig // for what needs a session, nil if there is no way to get one
}

// NewPool returns a Pool whose connections are those of a pool that leads to Postgres
// itself.
func NewPool(pool *pgxpool.Pool) *Pool {
	return &Pool{Pool: pool, session: pool.Config().ConnConfig}
}

// Session returns the configuration of a connection that keeps its session, as LISTEN
// needs it. It reports false if the database can be reached only through a pooler.
func (p *Pool) Session() (*pgx.ConnConfig, bool) {
	if p.session == nil {
		return nil, false
	}
	return p.session.Copy(), true
}

// Transact runs f in a transaction. It commits if f returns nil, and rolls back otherwise.
// If the schema has changed since a statement was prepared, f runs a second time: it must
// not rely on what it has left in its variables.
func (p *Pool) Transact(ctx context.Context, f func(tx pgx.Tx) error) error {
	return p.TransactWith(ctx, pgx.TxOptions{}, f)
}

// TransactWith is Transact with options of the transaction.
func (p *Pool) TransactWith(ctx context.Context, options pgx.TxOptions, f func(tx pgx.Tx) error) error {
	return p.Again(func() error { return pgx.BeginTxFunc(ctx, p, options, f) }) //nolint:forbidigo // Again repeats it.
}

// Again calls f, and a second time with new connections if the schema has changed since
// the old ones prepared a statement of f. It is for a transaction that Transact cannot run.
func (p *Pool) Again(f func() error) error {
	err := f()
	if outdated(err) {
		p.Reset()
		err = f()
	}
	return err
}

// Begin starts a transaction.
func (p *Pool) Begin(ctx context.Context) (pgx.Tx, error) { return p.BeginTx(ctx, pgx.TxOptions{}) } //nolint:forbidigo // The caller repeats it.

// BeginTx starts a transaction with options.
func (p *Pool) BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error) {
	if p.pooled {
		options.BeginQuery = beginWithLimits(options)
	}
	return p.Pool.BeginTx(ctx, options) //nolint:forbidigo // The caller repeats it.
}

// Exec implements Querier.
func (p *Pool) Exec(ctx context.Context, sql string, args ...any) (tag pgconn.CommandTag, err error) {
	err = p.Again(func() error {
		tag, err = p.exec(ctx, sql, args...)
		return err
	})
	return tag, err
}

func (p *Pool) exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	switch {
	case !p.pooled:
		return p.Pool.Exec(ctx, sql, args...)
	case len(args) == 0:
		return p.Pool.Exec(ctx, setLimits+sql)
	}
	results := p.sendLimited(ctx, queued(sql, args))
	tag, err := results.Exec()
	if closing := results.Close(); err == nil {
		err = closing
	}
	return tag, err
}

// Query implements Querier.
func (p *Pool) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	query := func() (pgx.Rows, error) {
		if !p.pooled {
			return p.Pool.Query(ctx, sql, args...)
		}
		results := p.sendLimited(ctx, queued(sql, args))
		found, err := results.Query()
		limited := &limitedRows{Rows: found, results: results}
		if err != nil {
			limited.Close()
		}
		return limited, err
	}
	var found pgx.Rows
	err := p.Again(func() (err error) {
		found, err = query()
		return err
	})
	return &rows{Rows: found, pool: p, again: query}, err
}

// QueryRow implements Querier.
func (p *Pool) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	found, err := p.Query(ctx, sql, args...)
	return row{found, err}
}

// SendBatch implements Querier. The batch is repeated by Close, unless results were read
// before: functions of the batch may be called a second time.
func (p *Pool) SendBatch(ctx context.Context, batch *pgx.Batch) pgx.BatchResults {
	return &batchResults{BatchResults: p.send(ctx, batch), pool: p, again: func() pgx.BatchResults { return p.send(ctx, Repeatable(batch)) }}
}

func (p *Pool) send(ctx context.Context, batch *pgx.Batch) pgx.BatchResults {
	if !p.pooled {
		return p.Pool.SendBatch(ctx, batch)
	}
	return p.sendLimited(ctx, batch)
}

func queued(sql string, args []any) *pgx.Batch {
	batch := &pgx.Batch{}
	batch.Queue(sql, args...)
	return batch
}

// Repeatable returns the batch as it can be sent once more: pgx remembers the prepared
// statements in it. A batch that is made outside the function of Transact needs it.
func Repeatable(batch *pgx.Batch) *pgx.Batch {
	again := &pgx.Batch{}
	for _, query := range batch.QueuedQueries {
		again.QueuedQueries = append(again.QueuedQueries, &pgx.QueuedQuery{SQL: query.SQL, Arguments: query.Arguments, Fn: query.Fn})
	}
	return again
}

// rows repeats its query if the first row cannot be read.
type rows struct {
	pgx.Rows
	pool  *Pool
	again func() (pgx.Rows, error)
	err   error
	begun bool
}

// Next implements pgx.Rows.
func (r *rows) Next() bool {
	if r.err != nil {
		return false
	}
	more := r.Rows.Next()
	if first := !r.begun; first && !more && outdated(r.Rows.Err()) {
		r.pool.Reset()
		if r.Rows, r.err = r.again(); r.err == nil {
			more = r.Rows.Next()
		}
	}
	r.begun = true
	return more
}

// Err implements pgx.Rows.
func (r *rows) Err() error {
	if r.err != nil {
		return r.err
	}
	return r.Rows.Err()
}

// row is the first of the rows, as pgx.Conn.QueryRow returns it.
type row struct {
	rows pgx.Rows
	err  error
}

// Scan implements pgx.Row.
func (r row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}

// batchResults repeats its batch in Close.
type batchResults struct {
	pgx.BatchResults
	pool  *Pool
	again func() pgx.BatchResults
	read  bool
}

// Exec implements pgx.BatchResults.
func (r *batchResults) Exec() (pgconn.CommandTag, error) {
	r.read = true
	return r.BatchResults.Exec()
}

// Query implements pgx.BatchResults.
func (r *batchResults) Query() (pgx.Rows, error) {
	r.read = true
	return r.BatchResults.Query()
}

// QueryRow implements pgx.BatchResults.
func (r *batchResults) QueryRow() pgx.Row {
	r.read = true
	return r.BatchResults.QueryRow()
}

// Close implements pgx.BatchResults.
func (r *batchResults) Close() error {
	err := r.BatchResults.Close()
	if !r.read && outdated(err) {
		r.pool.Reset()
		r.BatchResults = r.again()
		err = r.BatchResults.Close()
	}
	r.read = true
	return err
}

// outdated reports whether err can mean that the schema has changed since the statement was
// prepared: a result or a parameter has another type now, or its type was created again.
// The same statement succeeds if it is prepared again.
func outdated(err error) bool {
	fault, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	switch fault.Code {
	case "0A000": // The message is translated, the name of the function is not.
		return fault.Routine == "RevalidateCachedQuery"
	case "42883", // no operator or function for the old type of a parameter
		"42804", // a value of the old type for a column of the new one
		"42704": // the type of a parameter does not exist any more
		return true
	case "XX000": // Messages of internal errors are not translated.
		return strings.HasPrefix(fault.Message, "cache lookup failed for ")
	}
	return false
}
