package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Violates reports whether err is a violation of the named constraint.
func Violates(err error, constraint string) bool {
	fault, ok := errors.AsType[*pgconn.PgError](err)
	return ok && fault.ConstraintName == constraint
}

// Unavailable reports whether err says that the database cannot work at present:
// it is unreachable, starting, stopping, full, read-only, being restored, or too slow. The
// same statement may succeed later.
func Unavailable(err error) bool {
	if err == nil {
		return false
	}
	if fault, ok := errors.AsType[*pgconn.PgError](err); ok {
		return unavailable(fault.Code)
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return pgconn.SafeToRetry(err) || pgconn.Timeout(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded)
}

// Contended reports whether err says that the statement waited for a lock in vain, or
// that a concurrent transaction made it fail. The database is available, and the same
// transaction may succeed later.
func Contended(err error) bool {
	fault, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	return fault.Code == "55P03" || // lock timeout
		fault.Code == "40P01" || // deadlock
		fault.Code == "40001" // serialization failure
}

// Rejected reports whether err says that the values of a statement cannot be stored,
// whenever it is executed: they are no valid data, too large, or violate a constraint.
func Rejected(err error) bool {
	fault, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (strings.HasPrefix(fault.Code, "22") || // data exception
		strings.HasPrefix(fault.Code, "23") || // integrity constraint violation
		strings.HasPrefix(fault.Code, "54")) // program limit exceeded
}

// unavailable knows the SQLSTATEs of https://www.postgresql.org/docs/current/errcodes-appendix.html.
func unavailable(code string) bool {
	switch {
	case strings.HasPrefix(code, "08"), // connection exception
		strings.HasPrefix(code, "53"),  // insufficient resources
		strings.HasPrefix(code, "57P"), // shutdown, crash, starting up
		strings.HasPrefix(code, "58"):  // system error, such as a failing disk
		return true
	}
	return code == "57014" || // statement timeout
		code == "25006" || // read-only: a standby
		code == "25P03" || // idle in transaction for too long
		code == undefinedTable || // a restore has dropped it and not created it yet
		code == "3F000" // undefined schema: the same
}

const undefinedTable = "42P01"
