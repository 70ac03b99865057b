package event

import "time"

// UserPasswordResetRequested says that somebody requested a password reset. The
// subject is empty if no account has the address.
type UserPasswordResetRequested struct {
	Count int       `json:"count,omitempty"` // see Countable
	Since time.Time `json:"since,omitzero"`
}

// EventName implements Payload.
func (UserPasswordResetRequested) EventName() string { return "user.password_reset_requested.v1" }

// Counted implements Countable.
func (p UserPasswordResetRequested) Counted(n int, since time.Time) Payload {
	p.Count, p.Since = n, since.UTC()
	return p
}

// EventTopics implements Payload.
func (UserPasswordResetRequested) EventTopics() []Topic { return []Topic{Audit} }

// UserPasswordChanged says that the password of an account was changed. Method is
// change if the old password was given, reset if a link in a mail was used. Email
// and Name let email-service notify the owner. Passkeys sign in without the password:
// PasskeysRemoved of them were removed with the change, PasskeysLeft were kept.
type UserPasswordChanged struct {
	Method          string `json:"method"`
	Email           string `json:"email" personal:"true"`
	Name            string `json:"name" personal:"true"`
	PasskeysRemoved int    `json:"passkeysRemoved,omitempty"`
	PasskeysLeft    int    `json:"passkeysLeft,omitempty"`
}

// EventName implements Payload.
func (UserPasswordChanged) EventName() string { return "user.password_changed.v1" }

// EventTopics implements Payload.
func (UserPasswordChanged) EventTopics() []Topic { return []Topic{Audit, Email} }

// UserEmailChangeRequested says that an account's owner requested a new address.
type UserEmailChangeRequested struct {
	Email string `json:"email" personal:"true"`
}

// EventName implements Payload.
func (UserEmailChangeRequested) EventName() string { return "user.email_change_requested.v1" }

// EventTopics implements Payload.
func (UserEmailChangeRequested) EventTopics() []Topic { return []Topic{Audit} }

// UserEmailChanged says that the address of an account was changed. Reverted says
// that the change restored an earlier address, through the link sent there. AccountVersion
// orders the addresses of an account. It is the time of the change in microseconds since 1970,
// or one more than the previous version if that is higher, so it grows even when the database
// of auth-service was restored. Events of earlier releases have 0; there OccurredAt counts.
type UserEmailChanged struct {
	Email          string `json:"email" personal:"true"`
	PreviousEmail  string `json:"previousEmail" personal:"true"`
	Reverted       bool   `json:"reverted,omitempty"`
	AccountVersion int64  `json:"accountVersion,omitempty"`
}

// EventName implements Payload.
func (UserEmailChanged) EventName() string { return "user.email_changed.v1" }

// EventTopics implements Payload.
func (UserEmailChanged) EventTopics() []Topic { return []Topic{Audit, User} }

// UserSignUpRepeated says that somebody signed up with the address of an existing
// account. Email and Name let email-service notify the owner, who may have forgotten
// the account.
type UserSignUpRepeated struct {
	Email string `json:"email" personal:"true"`
	Name  string `json:"name" personal:"true"`
}

// EventName implements Payload.
func (UserSignUpRepeated) EventName() string { return "user.signup_repeated.v1" }

// EventTopics implements Payload.
func (UserSignUpRepeated) EventTopics() []Topic { return []Topic{Audit, Email} }

// EventOutcome implements outcomer.
func (UserSignUpRepeated) EventOutcome() Outcome { return Failure }

// UserVerificationResendRequested says that somebody requested another verification
// mail. The subject is empty if no account has the address.
type UserVerificationResendRequested struct {
	Count int       `json:"count,omitempty"` // see Countable
	Since time.Time `json:"since,omitzero"`
}

// EventName implements Payload.
func (UserVerificationResendRequested) EventName() string {
	return "user.verification_resend_requested.v1"
}

// Counted implements Countable.
func (p UserVerificationResendRequested) Counted(n int, since time.Time) Payload {
	p.Count, p.Since = n, since.UTC()
	return p
}

// EventTopics implements Payload.
func (UserVerificationResendRequested) EventTopics() []Topic { return []Topic{Audit} }

// UserSignInLimited says that so many sign-ins to an account failed in a row that passwords
// are accepted only from networks and devices that its owner has used, until the owner uses
// a reset link. Email and Name let email-service tell the owner.
type UserSignInLimited struct {
	Email string `json:"email" personal:"true"`
	Name  string `json:"name" personal:"true"`
}

// EventName implements Payload.
func (UserSignInLimited) EventName() string { return "user.sign_in_limited.v1" }

// EventTopics implements Payload.
func (UserSignInLimited) EventTopics() []Topic { return []Topic{Audit, Email} }

// EventOutcome implements outcomer.
func (UserSignInLimited) EventOutcome() Outcome { return Denied }

// UserMailCapped says that a mail was not sent because too many were sent to its
// address recently. Purpose is the purpose of the mail.
type UserMailCapped struct {
	Purpose string `json:"purpose"`
}

// EventName implements Payload.
func (UserMailCapped) EventName() string { return "user.mail_capped.v1" }

// EventTopics implements Payload.
func (UserMailCapped) EventTopics() []Topic { return []Topic{Audit} }

// EventOutcome implements outcomer.
func (UserMailCapped) EventOutcome() Outcome { return Denied }
