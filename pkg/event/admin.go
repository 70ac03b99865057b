package event

// UserRoleChanged says that somebody has other rights from now on.
type UserRoleChanged struct {
	Before string `json:"before"`
	After  string `json:"after"`
}

// EventName implements Payload.
func (UserRoleChanged) EventName() string { return "user.role_changed.v1" }

// EventTopics implements Payload.
func (UserRoleChanged) EventTopics() []Topic { return []Topic{Audit, User} }

// UserDisabled says that somebody cannot sign in any more. Before and After are
// states of the account.
type UserDisabled struct {
	Before string `json:"before"`
	After  string `json:"after"`
}

// EventName implements Payload.
func (UserDisabled) EventName() string { return "user.disabled.v1" }

// EventTopics implements Payload.
func (UserDisabled) EventTopics() []Topic { return []Topic{Audit, User} }

// UserEnabled says that somebody can sign in again. Before and After are states
// of the account.
type UserEnabled struct {
	Before string `json:"before"`
	After  string `json:"after"`
}

// EventName implements Payload.
func (UserEnabled) EventName() string { return "user.enabled.v1" }

// EventTopics implements Payload.
func (UserEnabled) EventTopics() []Topic { return []Topic{Audit, User} }

// UserDeleted says that an account is gone. Whoever holds personal data of the
// subject erases it, and keeps none that comes later.
// Role and Status are what the account had.
type UserDeleted struct {
	Role   string `json:"role,omitempty"`
	Status string `json:"status,omitempty"`
}

// EventName implements Payload.
func (UserDeleted) EventName() string { return "user.deleted.v1" }

// EventTopics implements Payload.
func (UserDeleted) EventTopics() []Topic { return []Topic{Audit, User, Email} }

// UserSessionsRevoked says that an administrator ended all sessions of an
// account. Revoked is how many lived.
type UserSessionsRevoked struct {
	Revoked int `json:"revoked"`
}

// EventName implements Payload.
func (UserSessionsRevoked) EventName() string { return "user.sessions_revoked.v1" }

// EventTopics implements Payload.
func (UserSessionsRevoked) EventTopics() []Topic { return []Topic{Audit} }

// UserViewed says that an administrator looked at an account.
type UserViewed struct{}

// EventName implements Payload.
func (UserViewed) EventName() string { return "user.viewed.v1" }

// EventTopics implements Payload.
func (UserViewed) EventTopics() []Topic { return []Topic{Audit} }

// UserListed says that an administrator listed accounts. What was searched for is
// not told: it may be somebody's address, and has no subject to be erased with.
// Found is how many were read: one more than a page shows if there are more.
type UserListed struct {
	Searched bool   `json:"searched"`
	Role     string `json:"role,omitempty"`
	Status   string `json:"status,omitempty"`
	Found    int    `json:"found"`
}

// EventName implements Payload.
func (UserListed) EventName() string { return "user.listed.v1" }

// EventTopics implements Payload.
func (UserListed) EventTopics() []Topic { return []Topic{Audit} }

// UserExported says that all accounts were written out with their hashes.
type UserExported struct {
	Count int `json:"count"`
}

// EventName implements Payload.
func (UserExported) EventName() string { return "user.exported.v1" }

// EventTopics implements Payload.
func (UserExported) EventTopics() []Topic { return []Topic{Audit} }
