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
type UserDeleted struct{}

// EventName implements Payload.
func (UserDeleted) EventName() string { return "user.deleted.v1" }

// EventTopics implements Payload.
func (UserDeleted) EventTopics() []Topic { return []Topic{Audit, User, Email} }
