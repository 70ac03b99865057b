package event

import "time"

// UserSignedUp says that an account was created. AccountVersion is that of UserEmailChanged.
type UserSignedUp struct {
	Email          string `json:"email" personal:"true"`
	Name           string `json:"name" personal:"true"`
	Role           string `json:"role"`
	AccountVersion int64  `json:"accountVersion,omitempty"`
}

// EventName implements Payload.
func (UserSignedUp) EventName() string { return "user.signed_up.v1" }

// EventTopics implements Payload.
func (UserSignedUp) EventTopics() []Topic { return []Topic{Audit, User} }

// UserEmailVerified says that the account's owner verified the address.
type UserEmailVerified struct {
	Email string `json:"email" personal:"true"`
}

// EventName implements Payload.
func (UserEmailVerified) EventName() string { return "user.email_verified.v1" }

// EventTopics implements Payload.
func (UserEmailVerified) EventTopics() []Topic { return []Topic{Audit, User} }

// UserLoggedIn says that a session began.
type UserLoggedIn struct {
	SessionID  string `json:"sessionId"`
	DeviceName string `json:"deviceName,omitempty" personal:"true"`
	Method     string `json:"method,omitempty"` // passkey, or empty for a password
}

// EventName implements Payload.
func (UserLoggedIn) EventName() string { return "user.logged_in.v1" }

// EventTopics implements Payload.
func (UserLoggedIn) EventTopics() []Topic { return []Topic{Audit, User} }

// UserLoginFailed says that a login was refused. The subject is empty if no account
// has the address. Reason is the code in the response.
type UserLoginFailed struct {
	Reason string    `json:"reason"`
	Count  int       `json:"count,omitempty"` // see Countable
	Since  time.Time `json:"since,omitzero"`
}

// EventName implements Payload.
func (UserLoginFailed) EventName() string { return "user.login_failed.v1" }

// Counted implements Countable.
func (p UserLoginFailed) Counted(n int, since time.Time) Payload {
	p.Count, p.Since = n, since.UTC()
	return p
}

// EventTopics implements Payload.
func (UserLoginFailed) EventTopics() []Topic { return []Topic{Audit} }

// EventOutcome implements outcomer.
func (UserLoginFailed) EventOutcome() Outcome { return Failure }

// UserLoggedOut says that the owner ended a session.
type UserLoggedOut struct {
	SessionID string `json:"sessionId"`
}

// EventName implements Payload.
func (UserLoggedOut) EventName() string { return "user.logged_out.v1" }

// EventTopics implements Payload.
func (UserLoggedOut) EventTopics() []Topic { return []Topic{Audit, User} }

// UserProfileUpdated says which fields of a profile changed. The values stay in
// user-service. Version is that of the profile after the change.
type UserProfileUpdated struct {
	Fields  []string `json:"fields"`
	Version int64    `json:"version"`
}

// EventName implements Payload.
func (UserProfileUpdated) EventName() string { return "user.profile_updated.v1" }

// EventTopics implements Payload.
func (UserProfileUpdated) EventTopics() []Topic { return []Topic{Audit, User} }

// UserDataExported says that somebody who is signed in to an account was given, or was mailed
// a link to, everything that the services hold about its owner.
type UserDataExported struct {
	Mailed bool `json:"mailed,omitempty"`
}

// EventName implements Payload.
func (UserDataExported) EventName() string { return "user.data_exported.v1" }

// EventTopics implements Payload.
func (UserDataExported) EventTopics() []Topic { return []Topic{Audit} }
