package event

// DeadLetterReplayed says that an administrator requested the replay of a dead
// letter, which is the subject.
type DeadLetterReplayed struct {
	EventID string `json:"eventId"`
	Type    string `json:"type"`
	Stream  string `json:"stream"`
}

// EventName implements Payload.
func (DeadLetterReplayed) EventName() string { return "dead_letter.replayed.v1" }

// EventTopics implements Payload.
func (DeadLetterReplayed) EventTopics() []Topic { return []Topic{Audit} }

// DeadLetterDiscarded says that an administrator discarded a dead letter, which is
// the subject. EventID and Type are empty if the entry could not be decoded.
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
