package postgres

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headgate/headgate/pkg/service"
)

// outageTracer logs that the database cannot be reached, from the first failed connection
// to the first success that no failure precedes for a second. It is safe for concurrent
// use.
type outageTracer struct{ outage *service.Outage }

var (
	_ pgx.QueryTracer   = outageTracer{}
	_ pgx.BatchTracer   = outageTracer{}
	_ pgx.ConnectTracer = outageTracer{}
)

func newOutageTracer(log *slog.Logger) outageTracer {
	return outageTracer{service.NewOutage(service.OutageConfig{
		Log: log, Failing: "database is unavailable; retrying", Over: "database is available again", Quiet: time.Second,
	})}
}

// TraceConnectStart implements pgx.ConnectTracer.
func (t outageTracer) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	return ctx
}

// TraceConnectEnd implements pgx.ConnectTracer.
func (t outageTracer) TraceConnectEnd(ctx context.Context, data pgx.TraceConnectEndData) {
	if !errors.Is(data.Err, context.Canceled) {
		t.outage.Record(ctx, "", data.Err)
	}
}

// TraceQueryStart implements pgx.QueryTracer.
func (t outageTracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (t outageTracer) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	t.answered(ctx, data.Err)
}

// TraceBatchStart implements pgx.BatchTracer.
func (t outageTracer) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

// TraceBatchQuery implements pgx.BatchTracer.
func (t outageTracer) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd implements pgx.BatchTracer.
func (t outageTracer) TraceBatchEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchEndData) {
	t.answered(ctx, data.Err)
}

// answered records that the database has answered on a connection that it had before.
func (t outageTracer) answered(ctx context.Context, err error) {
	if err == nil {
		t.outage.Record(ctx, "", nil)
	}
}

// Disconnected reports whether err says that the database cannot be reached. Open's pool
// logs that, once a minute while it lasts, so its users need not.
func Disconnected(err error) bool {
	if _, connecting := errors.AsType[*pgconn.ConnectError](err); connecting {
		return true
	}
	if fault, ok := errors.AsType[*pgconn.PgError](err); ok {
		return strings.HasPrefix(fault.Code, "57P") || strings.HasPrefix(fault.Code, "08")
	}
	return pgconn.SafeToRetry(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
