package event

// RateLimitsPath is where the gateway, which has no events of its own, tells
// auth-service of its rate limits, and nobody outside does.
const RateLimitsPath = "/internal/v1/rate-limits"

// RateLimitExceeded says that somebody asked more often than a policy of the gateway
// allows. It is told once for a while, not for each request that was refused. Route is
// a pattern, WindowSeconds the length of the window in which Limit requests may pass.
type RateLimitExceeded struct {
	Policy        string `json:"policy"`
	Limit         int    `json:"limit"`
	WindowSeconds int    `json:"windowSeconds"`
	Method        string `json:"method"`
	Route         string `json:"route"`
}

// EventName implements Payload.
func (RateLimitExceeded) EventName() string { return "rate_limit.exceeded.v1" }

// EventTopics implements Payload.
func (RateLimitExceeded) EventTopics() []Topic { return []Topic{Audit} }

// EventOutcome says that requests were refused.
func (RateLimitExceeded) EventOutcome() Outcome { return Denied }

// RateLimitCleared says that an operator let somebody begin again with policies of
// the gateway. By says which parts of a request named them, not what they were.
type RateLimitCleared struct {
	Policies []string `json:"policies"`
	By       []string `json:"by"`
}

// EventName implements Payload.
func (RateLimitCleared) EventName() string { return "rate_limit.cleared.v1" }

// EventTopics implements Payload.
func (RateLimitCleared) EventTopics() []Topic { return []Topic{Audit} }
