// Package event holds the contracts between the services: the events, their wire
// format, and the streams that carry them.
//
// It imports the standard library only and must know neither the broker nor the
// database, so that every service can depend on it at no cost.
package event

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Topic is a stream of events. There are several for the sake of least privilege:
// a service may read its own stream and no other.
type Topic string

// The streams. Email carries the events that email-service sends mail for, Audit
// every security-relevant event, User the events that other services project.
const (
	Email Topic = "email-events"
	Audit Topic = "audit-events"
	User  Topic = "user-events"
)

// Realtime is the stream of hints: facts that browsers are told of at once and that nothing
// depends on. A hint has no sequence number and goes through no outbox. The stream is short,
// so a hint can get lost.
const Realtime Topic = "realtime-events"

// Outcome is the result of the action that an event records.
type Outcome string

// The outcomes.
const (
	Success Outcome = "success"
	Failure Outcome = "failure"
	Denied  Outcome = "denied"
)

// Actor is the person or service that acted.
type Actor struct {
	Type string `json:"type"` // user, admin, auditor, service or anonymous
	ID   string `json:"id,omitempty"`
}

// Event is a fact in its wire format. ID is a UUIDv7, the Watermill UUID and the
// deduplication key. The outbox assigns it once, in the transaction of the state
// change; every copy of the event on every stream has the same.
//
// ProducerSeq is the sequence number of the event among those that its producer
// publishes on one stream: 1, 2, 3 and so on, without a gap, so that a consumer can
// prove a loss. The relay assigns it, so an event has a different number on each
// stream. 0 means that it has none. ProducerEpoch is the epoch of the number: the
// producer starts a new one when its outbox may be an older copy of itself, so a
// number and its epoch never stand for two events. It is empty before the first.
type Event struct {
	ProducerSeq   int64           `json:"producerSeq,omitempty"`
	ProducerEpoch string          `json:"producerEpoch,omitempty"`
	ID            string          `json:"id"`
	Name          string          `json:"name"`
	OccurredAt    time.Time       `json:"occurredAt"`
	Producer      string          `json:"producer"`
	Subject       string          `json:"subject,omitempty"`
	Actor         Actor           `json:"actor"`
	Outcome       Outcome         `json:"outcome"`
	IP            string          `json:"ip,omitempty"`
	UserAgent     string          `json:"userAgent,omitempty"`
	RequestID     string          `json:"requestId,omitempty"`
	CorrelationID string          `json:"correlationId,omitempty"`
	CausationID   string          `json:"causationId,omitempty"`
	TraceParent   string          `json:"traceparent,omitempty"`
	Erased        bool            `json:"erased,omitempty"` // Personal fields of Data were removed; see Erase.
	Data          json.RawMessage `json:"data"`

	// Topics are the streams the event goes to; they are not part of the wire format.
	Topics []Topic `json:"-"`
}

// Payload is the body of an event, one struct for each name and version. A published
// struct gets optional fields at most; any other change is a new version beside it.
type Payload interface {
	EventName() string
	EventTopics() []Topic
}

// outcomer is a payload whose outcome is not Success.
type outcomer interface{ EventOutcome() Outcome }

// New returns the event that p happened to subject, with the origin in ctx. It
// panics if p cannot be encoded, which no contract can cause: contracts hold only
// strings, numbers, times and lists of them.
func New(ctx context.Context, at time.Time, subject string, p Payload) Event {
	data, err := json.Marshal(p)
	if err != nil {
		panic(fmt.Sprintf("encode %s: %v", p.EventName(), err))
	}
	outcome := Success
	if o, ok := p.(outcomer); ok {
		outcome = o.EventOutcome()
	}
	origin := OriginFrom(ctx)
	return Event{
		Name:          p.EventName(),
		OccurredAt:    at.UTC(),
		Subject:       subject,
		Actor:         origin.Actor,
		Outcome:       outcome,
		IP:            origin.IP,
		UserAgent:     origin.UserAgent,
		RequestID:     origin.RequestID,
		CorrelationID: origin.CorrelationID,
		CausationID:   origin.CausationID,
		TraceParent:   origin.TraceParent,
		Data:          data,
		Topics:        p.EventTopics(),
	}
}

// Type returns the name without its version: user.signed_up.
func (e Event) Type() string {
	kind, _ := splitName(e.Name)
	return kind
}

// Version returns the version in the name: 1 for user.signed_up.v1.
func (e Event) Version() int {
	_, version := splitName(e.Name)
	return version
}

// clockSkew is how far ahead of the consumer's a producer's clock may be.
const clockSkew = time.Minute

// At returns when the event happened, for an effect that depends on it: OccurredAt, but at
// most a minute after now. Otherwise a wrong clock could make the effect last for ever.
func (e Event) At(now time.Time) time.Time {
	if limit := now.Add(clockSkew); e.OccurredAt.After(limit) {
		return limit.UTC()
	}
	return e.OccurredAt.UTC()
}

// ErrMalformed is returned for bytes that are not a valid event.
var ErrMalformed = errors.New("malformed event")

var (
	nameForm = regexp.MustCompile(`^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*\.v[1-9][0-9]{0,3}$`)
	idForm   = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
)

// Parse decodes an event and checks the fields that every consumer relies on, and
// that no text of the envelope is too long to be stored and indexed. It ignores unknown fields, so that a producer may be newer. Every error wraps
// ErrMalformed.
func Parse(data []byte) (Event, error) {
	if len(data) > maxSize {
		return Event{}, fmt.Errorf("%w: it has %d bytes, more than %d", ErrMalformed, len(data), maxSize)
	}
	var e Event
	if err := json.Unmarshal(data, &e); err != nil {
		return Event{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	switch {
	case !idForm.MatchString(e.ID):
		return Event{}, fmt.Errorf("%w: id is not a UUID", ErrMalformed)
	case !nameForm.MatchString(e.Name):
		return Event{}, fmt.Errorf("%w: name is not like subject.happened.v1", ErrMalformed)
	case e.OccurredAt.IsZero():
		return Event{}, fmt.Errorf("%w: occurredAt is missing", ErrMalformed)
	case e.OccurredAt.UTC().Year() < 1 || e.OccurredAt.UTC().Year() > 9998: // JSON has years to 9999, in any time zone.
		return Event{}, fmt.Errorf("%w: occurredAt is out of range", ErrMalformed)
	case e.Producer == "" || e.ProducerSeq < 0:
		return Event{}, fmt.Errorf("%w: producer is missing, or producerSeq is negative", ErrMalformed)
	case len(e.Data) == 0 || e.Data[0] != '{':
		return Event{}, fmt.Errorf("%w: data is not an object", ErrMalformed)
	}
	if err := e.checkBounds(); err != nil {
		return Event{}, err
	}
	return e, nil
}

// Decode returns the body of e as a P. The error wraps ErrMalformed if e has
// another name or its body is not a valid P.
func Decode[P Payload](e Event) (P, error) {
	var p P
	if e.Name != p.EventName() {
		return p, fmt.Errorf("%w: %s is not %s", ErrMalformed, e.Name, p.EventName())
	}
	if err := json.Unmarshal(e.Data, &p); err != nil {
		return p, fmt.Errorf("%w: decode %s: %w", ErrMalformed, e.Name, err)
	}
	return p, nil
}

func splitName(name string) (kind string, version int) {
	dot := strings.LastIndex(name, ".v")
	if dot < 0 {
		return name, 0
	}
	version, err := strconv.Atoi(name[dot+2:])
	if err != nil {
		return name, 0
	}
	return name[:dot], version
}
