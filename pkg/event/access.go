package event

// AccessDenied says that somebody who is signed in asked for what is not theirs
// to ask for. Route is a pattern of the table of routes.
type AccessDenied struct {
	Method string `json:"method"`
	Route  string `json:"route"`
}

// EventName implements Payload.
func (AccessDenied) EventName() string { return "access.denied.v1" }

// EventTopics implements Payload.
func (AccessDenied) EventTopics() []Topic { return []Topic{Audit} }

// EventOutcome says that the request was refused.
func (AccessDenied) EventOutcome() Outcome { return Denied }
