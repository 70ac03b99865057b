package event

import "time"

// RateLimitsPath is auth-service's internal endpoint for events about rate limits.
// The gateway, which has no outbox, sends them there; no client can.
const RateLimitsPath = "/internal/v1/rate-limits"

// RateLimitExceeded says that a client exceeded a rate limit of the gateway. There is
// one event for a period, not for each refused request. Route is the pattern in the
// routing table; Limit requests are allowed in WindowSeconds.
type RateLimitExceeded struct {
	Policy        string    `json:"policy"`
	Limit         int       `json:"limit"`
	WindowSeconds int       `json:"windowSeconds"`
	Method        string    `json:"method"`
	Route         string    `json:"route"`
	Count         int       `json:"count,omitempty"` // see Countable
	Since         time.Time `json:"since,omitzero"`
}

// EventName implements Payload.
func (RateLimitExceeded) EventName() string { return "rate_limit.exceeded.v1" }

// Counted implements Countable.
func (p RateLimitExceeded) Counted(n int, since time.Time) Payload {
	p.Count, p.Since = n, since.UTC()
	return p
}

// EventTopics implements Payload.
func (RateLimitExceeded) EventTopics() []Topic { return []Topic{Audit} }

// EventOutcome implements outcomer.
func (RateLimitExceeded) EventOutcome() Outcome { return Denied }

// RateLimitCleared says that an administrator reset the counters of rate limits. By
// lists the kinds of the keys that selected them, such as an IP address, but not
// their values.
type RateLimitCleared struct {
	Policies []string `json:"policies"`
	By       []string `json:"by"`
}

// EventName implements Payload.
func (RateLimitCleared) EventName() string { return "rate_limit.cleared.v1" }

// EventTopics implements Payload.
func (RateLimitCleared) EventTopics() []Topic { return []Topic{Audit} }
