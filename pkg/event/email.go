package event

import "time"

// EmailSent says that the mail server accepted a message. To is masked, and empty in the hint
// on Realtime.
type EmailSent struct {
	MessageID string `json:"messageId"`
	Template  string `json:"template"`
	To        string `json:"to" personal:"true"`
}

// EventName implements Payload.
func (EmailSent) EventName() string { return "email.sent.v1" }

// EventTopics implements Payload.
func (EmailSent) EventTopics() []Topic { return []Topic{Audit} }

// EmailFailed says that a message was permanently rejected, or deferred for too long.
// To is masked.
type EmailFailed struct {
	MessageID string `json:"messageId"`
	Template  string `json:"template"`
	To        string `json:"to" personal:"true"`
	Reason    string `json:"reason"`
}

// EventName implements Payload.
func (EmailFailed) EventName() string { return "email.failed.v1" }

// EventTopics implements Payload.
func (EmailFailed) EventTopics() []Topic { return []Topic{Audit} }

// EventOutcome implements outcomer.
func (EmailFailed) EventOutcome() Outcome { return Failure }

// EmailDeferred says that the mail server deferred a message (SMTP 4xx).
type EmailDeferred struct {
	MessageID     string    `json:"messageId"`
	Template      string    `json:"template"`
	To            string    `json:"to" personal:"true"` // masked
	Reason        string    `json:"reason"`
	NextAttemptAt time.Time `json:"nextAttemptAt"`
}

// EventName implements Payload.
func (EmailDeferred) EventName() string { return "email.deferred.v1" }

// EventTopics implements Payload.
func (EmailDeferred) EventTopics() []Topic { return []Topic{Audit} }

// EventOutcome implements outcomer.
func (EmailDeferred) EventOutcome() Outcome { return Failure }

// EmailResumed says that an operator decided what happens to the mails that were withheld
// since the database was restored: mails of events that occurred before SkipBefore are
// suppressed, the others are sent.
type EmailResumed struct {
	HandledUntil time.Time  `json:"handledUntil"` // mails of events that occurred until then were withheld
	SkipBefore   *time.Time `json:"skipBefore,omitempty"`
}

// EventName implements Payload.
func (EmailResumed) EventName() string { return "email.resumed.v1" }

// EventTopics implements Payload.
func (EmailResumed) EventTopics() []Topic { return []Topic{Audit} }
