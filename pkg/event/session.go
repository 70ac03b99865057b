package event

import "time"

// SessionRefreshed says that a refresh token was exchanged. Replayed distinguishes
// a repeated exchange within REFRESH_GRACE from a rotation.
type SessionRefreshed struct {
	SessionID  string `json:"sessionId"`
	Generation int    `json:"generation"`
	Replayed   bool   `json:"replayed,omitempty"`
}

// EventName implements Payload.
func (SessionRefreshed) EventName() string { return "session.refreshed.v1" }

// EventTopics implements Payload.
func (SessionRefreshed) EventTopics() []Topic { return []Topic{Audit} }

// SessionRevoked says that a session ended for another reason than its owner's
// logout.
type SessionRevoked struct {
	SessionID string `json:"sessionId"`
	Reason    string `json:"reason"`
}

// EventName implements Payload.
func (SessionRevoked) EventName() string { return "session.revoked.v1" }

// EventTopics implements Payload.
func (SessionRevoked) EventTopics() []Topic { return []Topic{Audit, User} }

// SessionsAllRevoked says that an administrator or operator revoked all sessions of all
// accounts that began before a time. No other event says so of each of them.
type SessionsAllRevoked struct {
	Before time.Time `json:"before"`
}

// EventName implements Payload.
func (SessionsAllRevoked) EventName() string { return "session.all_revoked.v1" }

// EventTopics implements Payload.
func (SessionsAllRevoked) EventTopics() []Topic { return []Topic{Audit, User} }

// SessionRefreshReused says that a rotated refresh token was used after
// REFRESH_GRACE, a sign of theft, and that its session was revoked (RFC 9700,
// 4.14). Email and Name let email-service warn the owner.
type SessionRefreshReused struct {
	SessionID  string `json:"sessionId"`
	Generation int    `json:"generation"`
	Email      string `json:"email" personal:"true"`
	Name       string `json:"name" personal:"true"`
}

// EventName implements Payload.
func (SessionRefreshReused) EventName() string { return "session.refresh_reused.v1" }

// EventTopics implements Payload.
func (SessionRefreshReused) EventTopics() []Topic { return []Topic{Email, Audit} }

// EventOutcome implements outcomer.
func (SessionRefreshReused) EventOutcome() Outcome { return Denied }
