package event

import "time"

// AccessDenied says that a signed-in user sent a request without the permission for
// it. Route is the pattern in the routing table.
type AccessDenied struct {
	Method string    `json:"method"`
	Route  string    `json:"route"`
	Count  int       `json:"count,omitempty"` // see Countable
	Since  time.Time `json:"since,omitzero"`
}

// EventName implements Payload.
func (AccessDenied) EventName() string { return "access.denied.v1" }

// Counted implements Countable.
func (p AccessDenied) Counted(n int, since time.Time) Payload {
	p.Count, p.Since = n, since.UTC()
	return p
}

// EventTopics implements Payload.
func (AccessDenied) EventTopics() []Topic { return []Topic{Audit} }

// EventOutcome implements outcomer.
func (AccessDenied) EventOutcome() Outcome { return Denied }

// RequestRefused says that a security-relevant request was refused for a reason
// that no other event records. Code is the one in the response. The subject is the
// signed-in user, if any.
type RequestRefused struct {
	Method string    `json:"method"`
	Route  string    `json:"route"`
	Code   string    `json:"code"`
	Count  int       `json:"count,omitempty"` // see Countable
	Since  time.Time `json:"since,omitzero"`
}

// EventName implements Payload.
func (RequestRefused) EventName() string { return "request.refused.v1" }

// Counted implements Countable.
func (p RequestRefused) Counted(n int, since time.Time) Payload {
	p.Count, p.Since = n, since.UTC()
	return p
}

// EventTopics implements Payload.
func (RequestRefused) EventTopics() []Topic { return []Topic{Audit} }

// EventOutcome implements outcomer.
func (RequestRefused) EventOutcome() Outcome { return Failure }

// AuditRead says that an administrator or auditor read data of others. Route is the pattern
// in the routing table, ObjectID the id in its path, and Found the number of items of a
// list. The subject is the user whose data it is, if it is the data of one.
type AuditRead struct {
	Route    string `json:"route"`
	ObjectID string `json:"objectId,omitempty"`
	Found    int    `json:"found,omitempty"`
}

// EventName implements Payload.
func (AuditRead) EventName() string { return "audit.read.v1" }

// EventTopics implements Payload.
func (AuditRead) EventTopics() []Topic { return []Topic{Audit} }
