// Package mail decides which mail an event calls for, renders it, and sends it once.
// It knows no HTTP, no SQL and no message broker.
package mail

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/headgate/headgate/pkg/event"
)

// The states of a delivery.
const (
	StatusQueued     = "queued"
	StatusSending    = "sending"
	StatusSent       = "sent"
	StatusDeferred   = "deferred" // the mail server answered 4xx; the next attempt is scheduled
	StatusFailed     = "failed"
	StatusSuppressed = "suppressed"
	StatusWithheld   = "withheld" // an operator decides: it may have been sent before the database was restored
)

// Delivery is the stored record of one mail: its recipient, its state and its
// attempts. The text of the mail is rendered for each attempt and never stored, because
// a link in it is a live secret.
type Delivery struct {
	ID        string
	EventID   string
	Template  string
	UserID    string
	To        string
	MessageID string // of RFC 5322, without angle brackets
	RequestID string
	Status    string
	Attempts  int // those that the mail server answered
	LastError string
	CreatedAt time.Time
	UpdatedAt time.Time
	SentAt    time.Time // zero until the mail is sent

	NextAttemptAt time.Time // zero unless an attempt is scheduled
	// RetriedSince is when the time for which the mail is retried began: when it was created,
	// or when an operator has resumed it.
	RetriedSince time.Time
}

// Message is a rendered mail, as it goes to the mail server.
type Message struct {
	Delivery

	Subject    string
	Text, HTML string
	Date       time.Time
}

// Store keeps deliveries.
type Store interface {
	// Queue stores d unless its event e already has a delivery, and returns the stored
	// one. It is withheld if an operator has to decide about mails of that time; e is stored
	// with it. It fails with ErrAccountDeleted if the user was erased, and with
	// ErrDatabaseUnchecked.
	Queue(ctx context.Context, d Delivery, e event.Event) (Delivery, error)
	// Send locks the delivery, stores that it was sent, with the event, then calls send,
	// and commits. So whatever can fail fails before the mail is sent, except the commit. If
	// that fails, the error is ErrNotRecorded: this process remembers that the mail was
	// sent, and records it before it sends another one.
	//
	// Send does not call send if the mail was sent or suppressed meanwhile, nor if it is
	// withheld, which is ErrWithheld, nor in a database for which it fails with
	// ErrDatabaseUnchecked.
	// The lock ends with the process, so that no other instance has to wait for a lease to
	// expire. While another transaction has it, Send fails with ErrLocked after a moment. A failed delivery may still be sent: an
	// operator can replay its event.
	Send(ctx context.Context, id string, send func(context.Context) error, sent func(d Delivery) event.Event) error
	// Fail stores that the mail will not be sent, with the event. It does nothing if
	// the mail was sent or has already failed.
	Fail(ctx context.Context, id, reason string, e event.Event) error
	// Defer schedules the next attempt, with the event. It does nothing if the mail was
	// sent or suppressed.
	Defer(ctx context.Context, id string, d Deferral, e event.Event) error
	// Release stores that the attempt did not reach the mail server and does not
	// count.
	Release(ctx context.Context, id, reason string) error
	// Erase deletes the recipient from all deliveries to a user and suppresses those
	// that were not sent yet.
	Erase(ctx context.Context, userID string, at time.Time) error
}

// Deferral is a scheduled next attempt.
type Deferral struct {
	Reason string
	Next   time.Time
	Source event.Event // the event to render the mail from again
}

// Sender hands messages to a mail server. It fails with a DeferredError if the server
// may accept the message later, with a PermanentlyRejectedError if it never will, and
// with ErrServerUnavailable if the cause is not the message.
type Sender interface {
	Send(ctx context.Context, m Message) error
}

// ErrServerUnavailable says that the mail server accepts no message at all: it is down,
// it is shutting down, or it refuses our credentials or our sender address.
var ErrServerUnavailable = errors.New("mail server unavailable")

// ErrExpired says that the link expired before its mail could be sent.
var ErrExpired = errors.New("the link has expired")

// ErrNotRecorded says that the mail server accepted a mail, and that this could not be
// stored. No other mail is sent until it is.
var ErrNotRecorded = errors.New("a mail was sent, but not recorded")

// ErrWithheld says that the mail is withheld since its delivery was read.
var ErrWithheld = errors.New("the mail is withheld")

// ErrDatabaseUnchecked says that the database may be an older copy, which does not know
// which mails were sent. No mail is sent until it is compared with what others know of it.
var ErrDatabaseUnchecked = errors.New("the database may be an older copy: it is not checked yet")

// ErrLocked says that another transaction has locked the delivery.
var ErrLocked = errors.New("the delivery is locked")

// ErrAccountDeleted says that the account of the recipient was deleted.
var ErrAccountDeleted = errors.New("the account was deleted")

// DeferredError says that the mail server answered 4xx, or that the connection broke:
// a later attempt may succeed.
type DeferredError struct{ Err error }

func (e *DeferredError) Error() string { return "deferred: " + e.Err.Error() }

// Unwrap returns what the server said.
func (e *DeferredError) Unwrap() error { return e.Err }

// PermanentlyRejectedError says that the mail server answered 5xx: no later attempt can
// succeed.
type PermanentlyRejectedError struct{ Err error }

func (e *PermanentlyRejectedError) Error() string { return "permanently rejected: " + e.Err.Error() }

// Unwrap returns what the server said.
func (e *PermanentlyRejectedError) Unwrap() error { return e.Err }

// Mask hides most of an address, for logs and events: b***@example.com.
func Mask(address string) string {
	local, domain, ok := strings.Cut(address, "@")
	if !ok || local == "" {
		return "***"
	}
	_, first := utf8.DecodeRuneInString(local)
	return local[:first] + "***@" + domain
}
