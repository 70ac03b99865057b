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

// RequestRefused says that something security-relevant was asked for and refused,
// for a reason that no other event tells. Code is what the client saw. The subject
// is who asked, if they are signed in.
type RequestRefused struct {
	Method string `json:"method"`
	Route  string `json:"route"`
	Code   string `json:"code"`
}

// EventName implements Payload.
func (RequestRefused) EventName() string { return "request.refused.v1" }

// EventTopics implements Payload.
func (RequestRefused) EventTopics() []Topic { return []Topic{Audit} }

// EventOutcome says that this is a failure.
func (RequestRefused) EventOutcome() Outcome { return Failure }
