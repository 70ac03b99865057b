package event

// GapAccepted says that an operator accepted that published events are missing from a
// consumer's database for good. Gap names them as the command gaps does.
type GapAccepted struct {
	Stream string `json:"stream"`
	Gap    string `json:"gap"`
	Reason string `json:"reason"`
}

// EventName implements Payload.
func (GapAccepted) EventName() string { return "gap.accepted.v1" }

// EventTopics implements Payload.
func (GapAccepted) EventTopics() []Topic { return []Topic{Audit} }
