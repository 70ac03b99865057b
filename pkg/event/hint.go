package event

import "time"

// AuditAppended is a hint that records were added to the audit log, one a second at most from
// each instance of audit-service.
type AuditAppended struct {
	Count int       `json:"count,omitempty"` // see Countable
	Since time.Time `json:"since,omitzero"`
}

// EventName implements Payload.
func (AuditAppended) EventName() string { return "audit.appended.v1" }

// Counted implements Countable.
func (p AuditAppended) Counted(n int, since time.Time) Payload {
	p.Count, p.Since = n, since.UTC()
	return p
}

// EventTopics implements Payload.
func (AuditAppended) EventTopics() []Topic { return []Topic{Realtime} }

// DeadLetterAdded is a hint that its producer could not handle events, one a second at most
// from each instance.
type DeadLetterAdded struct {
	Count int       `json:"count,omitempty"` // see Countable
	Since time.Time `json:"since,omitzero"`
}

// EventName implements Payload.
func (DeadLetterAdded) EventName() string { return "dead_letter.added.v1" }

// Counted implements Countable.
func (p DeadLetterAdded) Counted(n int, since time.Time) Payload {
	p.Count, p.Since = n, since.UTC()
	return p
}

// EventTopics implements Payload.
func (DeadLetterAdded) EventTopics() []Topic { return []Topic{Realtime} }
