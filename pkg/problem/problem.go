// Package problem is the kind of error that a client may see. A domain returns
// a problem for every expected failure; anything else that reaches the edge is
// an internal error, logged in full and shown without detail.
package problem

import (
	"errors"
	"strings"
	"time"
)

// Kind is what sort of failure a problem is. The edge maps it to a status.
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
	TooLarge
	UnsupportedMedia
	TooManyRequests
	BadGateway
	Unavailable
	Timeout
)

// Field says what is wrong with one member of the input.
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

// New returns a problem. Problems are package variables next to the type that
// they speak of and are matched with errors.Is, by their code.
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

// WithRetryAfter returns a copy that tells the client when to come back.
func (p *Problem) WithRetryAfter(d time.Duration) *Problem {
	c := *p
	c.RetryAfter = d
	return &c
}

// ErrValidation is the problem that Validation returns, for errors.Is.
var ErrValidation = New(Invalid, "validation_failed", "Some fields are not valid.")

// Validation returns nil if fields is empty, and else ErrValidation with them.
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

// Recorded marks an error that an event tells of already.
func Recorded(err error) error { return recorded{err} }

// IsRecorded reports whether an event tells of err already.
func IsRecorded(err error) bool {
	_, ok := errors.AsType[recorded](err)
	return ok
}

type recorded struct{ error }

func (r recorded) Unwrap() error { return r.error }

// The problems that every service can return.
var (
	ErrInternal        = New(Internal, "internal_error", "Something went wrong on our side.")
	ErrUnauthenticated = New(Unauthenticated, "unauthenticated", "Sign in to do this.")
	ErrForbidden       = New(Forbidden, "forbidden", "You are not allowed to do this.")
	ErrNotFound        = New(NotFound, "not_found", "There is nothing here.")
	ErrMethod          = New(MethodNotAllowed, "method_not_allowed", "This address does not take that method.")
	ErrTooLarge        = New(TooLarge, "body_too_large", "The request body is too large.")
	ErrMediaType       = New(UnsupportedMedia, "unsupported_media_type", "Send the body as application/json.")
	ErrMalformedBody   = New(Invalid, "malformed_body", "The request body is not the JSON that is expected here.")
	ErrUnavailable     = New(Unavailable, "unavailable", "This is not available at the moment. Try again shortly.")
)
