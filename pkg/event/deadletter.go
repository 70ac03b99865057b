package event

// DeadLetterReplayed says that an operator had a dead letter handled again. The
// subject is the letter.
type DeadLetterReplayed struct {
	EventID string `json:"eventId"`
	Type    string `json:"type"`
	Stream  string `json:"stream"`
}

// EventName implements Payload.
func (DeadLetterReplayed) EventName() string { return "dead_letter.replayed.v1" }

// EventTopics implements Payload.
func (DeadLetterReplayed) EventTopics() []Topic { return []Topic{Audit} }

// DeadLetterDiscarded says that an operator gave a dead letter up. The subject
// is the letter; the event's id and type are empty if it was no event.
type DeadLetterDiscarded struct {
	EventID string `json:"eventId,omitempty"`
	Type    string `json:"type,omitempty"`
	Stream  string `json:"stream"`
	Reason  string `json:"reason"`
}

// EventName implements Payload.
func (DeadLetterDiscarded) EventName() string { return "dead_letter.discarded.v1" }

// EventTopics implements Payload.
func (DeadLetterDiscarded) EventTopics() []Topic { return []Topic{Audit} }
