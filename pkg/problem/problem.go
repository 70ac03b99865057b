// Package problem holds the errors that clients see. A domain returns a problem for
// every expected failure. The edge logs any other error in full and answers
// ErrInternal. The package must know neither HTTP nor a service.
package problem

import (
	"errors"
	"strings"
	"time"
)

// Kind is the category of a problem. The edge maps it to an HTTP status.
type Kind int

// The kinds.
const (
	Internal Kind = iota
	Invalid
	Unauthenticated
	Forbidden
	NotFound
	MethodNotAllowed
	Conflict
	Gone
	PreconditionFailed
	RequestTimeout
	TooLarge
	UnsupportedMedia
	TooManyRequests
	BadGateway
	Unavailable
	Timeout
)

// Field says what is wrong with one field of the input.
type Field struct {
	Field   string `json:"field"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Problem is a failure with a stable code for programs and a message for people.
//
//nolint:errname // It reads as problem.Problem, and what clients get is called a problem (RFC 9457).
type Problem struct {
	Kind       Kind
	Code       string
	Message    string
	Fields     []Field
	RetryAfter time.Duration
}

// New returns a problem. Declare it as a package variable beside the type it is about.
// errors.Is matches it by its code.
func New(kind Kind, code, message string) *Problem {
	return &Problem{Kind: kind, Code: code, Message: message}
}

// Error implements error, for logs and commands.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Code + ": " + p.Message)
	for _, f := range p.Fields {
		b.WriteString(" " + f.Field + ": " + f.Message)
	}
	return b.String()
}

// Is reports whether target is a problem with the same code.
func (p *Problem) Is(target error) bool {
	t, ok := target.(*Problem)
	return ok && t.Code == p.Code
}

// WithRetryAfter returns a copy that tells the client when to retry.
func (p *Problem) WithRetryAfter(d time.Duration) *Problem {
	c := *p
	c.RetryAfter = d
	return &c
}

// ErrValidation is the problem that Validation returns, for errors.Is.
var ErrValidation = New(Invalid, "validation_failed", "Some fields are invalid.")

// Validation returns ErrValidation with the fields, or nil if there are none.
func Validation(fields ...Field) error {
	if len(fields) == 0 {
		return nil
	}
	p := *ErrValidation
	p.Fields = fields
	return &p
}

// From returns the problem in err, or ErrInternal if there is none.
func From(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	return ErrInternal
}

// Recorded marks an error that an event already records.
func Recorded(err error) error { return recorded{err} }

// IsRecorded reports whether an event already records err.
func IsRecorded(err error) bool {
	_, ok := errors.AsType[recorded](err)
	return ok
}

type recorded struct{ error }

func (r recorded) Unwrap() error { return r.error }

// The problems that every service can return.
var (
	ErrInternal        = New(Internal, "internal_error", "Internal error. Try again later.")
	ErrUnauthenticated = New(Unauthenticated, "unauthenticated", "Authentication required. Sign in, then retry.")
	ErrForbidden       = New(Forbidden, "forbidden", "You do not have permission to do this.")
	ErrNotFound        = New(NotFound, "not_found", "Not found.")
	ErrMethod          = New(MethodNotAllowed, "method_not_allowed", "This path does not support that method.")
	ErrTooLarge        = New(TooLarge, "body_too_large", "The request body is too large.")
	ErrMediaType       = New(UnsupportedMedia, "unsupported_media_type", "Content-Type must be application/json.")
	ErrRequestTimeout  = New(RequestTimeout, "request_timeout", "The request body did not arrive in time. Check your connection, then retry.")
	ErrMalformedBody   = New(Invalid, "malformed_body", "Malformed request body.")
	ErrUnavailable     = New(Unavailable, "unavailable", "Temporarily unavailable. Try again shortly.")
)
