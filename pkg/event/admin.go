package event

import "time"

// UserRoleChanged says that the role of an account was changed. Email and Name let
// email-service notify the owner.
type UserRoleChanged struct {
	Before string `json:"before"`
	After  string `json:"after"`
	Email  string `json:"email,omitempty" personal:"true"`
	Name   string `json:"name,omitempty" personal:"true"`
}

// EventName implements Payload.
func (UserRoleChanged) EventName() string { return "user.role_changed.v1" }

// EventTopics implements Payload.
func (UserRoleChanged) EventTopics() []Topic { return []Topic{Audit, User, Email} }

// UserDisabled says that an account was disabled, so that its owner cannot sign in.
// Before and After are states of the account. Email and Name let email-service notify
// the owner.
type UserDisabled struct {
	Before string `json:"before"`
	After  string `json:"after"`
	Email  string `json:"email,omitempty" personal:"true"`
	Name   string `json:"name,omitempty" personal:"true"`
}

// EventName implements Payload.
func (UserDisabled) EventName() string { return "user.disabled.v1" }

// EventTopics implements Payload.
func (UserDisabled) EventTopics() []Topic { return []Topic{Audit, User, Email} }

// UserEnabled says that an account was enabled again. Before and After are states
// of the account. Email and Name let email-service notify the owner.
type UserEnabled struct {
	Before string `json:"before"`
	After  string `json:"after"`
	Email  string `json:"email,omitempty" personal:"true"`
	Name   string `json:"name,omitempty" personal:"true"`
}

// EventName implements Payload.
func (UserEnabled) EventName() string { return "user.enabled.v1" }

// EventTopics implements Payload.
func (UserEnabled) EventTopics() []Topic { return []Topic{Audit, User, Email} }

// UserDeleted says that an account was deleted. Every service that holds personal
// data of the subject erases it, and stores none that arrives later. Role and Status
// are the last ones of the account. Reason is empty if its owner or an administrator
// asked for it; else the address was never verified: rejected by the person who reads its
// mail, replaced by a newer sign-up, or unverified for too long.
type UserDeleted struct {
	Role   string `json:"role,omitempty"`
	Status string `json:"status,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// EventName implements Payload.
func (UserDeleted) EventName() string { return "user.deleted.v1" }

// EventTopics implements Payload.
func (UserDeleted) EventTopics() []Topic { return []Topic{Audit, User, Email} }

// UserDeletionScheduled says that the owner of an account asked for its deletion, which
// happens at DeleteAt unless the owner signs in before. All sessions ended. Email and Name let
// email-service notify the owner.
type UserDeletionScheduled struct {
	DeleteAt time.Time `json:"deleteAt"`
	Email    string    `json:"email" personal:"true"`
	Name     string    `json:"name" personal:"true"`
}

// EventName implements Payload.
func (UserDeletionScheduled) EventName() string { return "user.deletion_scheduled.v1" }

// EventTopics implements Payload.
func (UserDeletionScheduled) EventTopics() []Topic { return []Topic{Audit, Email} }

// UserDeletionCancelled says that a sign-in has cancelled the deletion of an account. Email
// and Name let email-service notify the owner.
type UserDeletionCancelled struct {
	Email string `json:"email" personal:"true"`
	Name  string `json:"name" personal:"true"`
}

// EventName implements Payload.
func (UserDeletionCancelled) EventName() string { return "user.deletion_cancelled.v1" }

// EventTopics implements Payload.
func (UserDeletionCancelled) EventTopics() []Topic { return []Topic{Audit, Email} }

// UserSessionsRevoked says that an administrator ended all sessions of an
// account. Revoked is their number.
type UserSessionsRevoked struct {
	Revoked int `json:"revoked"`
}

// EventName implements Payload.
func (UserSessionsRevoked) EventName() string { return "user.sessions_revoked.v1" }

// EventTopics implements Payload.
func (UserSessionsRevoked) EventTopics() []Topic { return []Topic{Audit} }

// UserViewed says that an administrator read an account.
type UserViewed struct{}

// EventName implements Payload.
func (UserViewed) EventName() string { return "user.viewed.v1" }

// EventTopics implements Payload.
func (UserViewed) EventTopics() []Topic { return []Topic{Audit} }

// UserListed says that an administrator listed accounts. It omits the search text,
// which may be an address and could not be erased with an account. Found is how many
// accounts were read: one more than the page shows if there are more.
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

// UserExported says that all accounts were exported with their password hashes.
type UserExported struct {
	Count int `json:"count"`
}

// EventName implements Payload.
func (UserExported) EventName() string { return "user.exported.v1" }

// EventTopics implements Payload.
func (UserExported) EventTopics() []Topic { return []Topic{Audit} }
