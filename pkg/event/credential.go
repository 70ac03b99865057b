package event

// UserPasswordResetRequested says that somebody asked for a new password. The
// subject is empty when no account has the address.
type UserPasswordResetRequested struct{}

// EventName implements Payload.
func (UserPasswordResetRequested) EventName() string { return "user.password_reset_requested.v1" }

// EventTopics implements Payload.
func (UserPasswordResetRequested) EventTopics() []Topic { return []Topic{Audit} }

// UserPasswordChanged says that an account has another password: because its
// owner knew the old one (change) or reads its mail (reset). Email and Name let
// email-service tell the owner.
type UserPasswordChanged struct {
	Method string `json:"method"`
	Email  string `json:"email" personal:"true"`
	Name   string `json:"name" personal:"true"`
}

// EventName implements Payload.
func (UserPasswordChanged) EventName() string { return "user.password_changed.v1" }

// EventTopics implements Payload.
func (UserPasswordChanged) EventTopics() []Topic { return []Topic{Audit, Email} }

// UserEmailChangeRequested says that an account shall have another address.
type UserEmailChangeRequested struct {
	Email string `json:"email" personal:"true"`
}

// EventName implements Payload.
func (UserEmailChangeRequested) EventName() string { return "user.email_change_requested.v1" }

// EventTopics implements Payload.
func (UserEmailChangeRequested) EventTopics() []Topic { return []Topic{Audit} }

// UserEmailChanged says that an account has another address. Reverted says that
// the owner of the one before took a change back.
type UserEmailChanged struct {
	Email         string `json:"email" personal:"true"`
	PreviousEmail string `json:"previousEmail" personal:"true"`
	Reverted      bool   `json:"reverted,omitempty"`
}

// EventName implements Payload.
func (UserEmailChanged) EventName() string { return "user.email_changed.v1" }

// EventTopics implements Payload.
func (UserEmailChanged) EventTopics() []Topic { return []Topic{Audit, User} }

// UserSignUpRepeated says that somebody signed up with the address of an
// account. Email and Name let email-service tell the owner, who may have
// forgotten.
type UserSignUpRepeated struct {
	Email string `json:"email" personal:"true"`
	Name  string `json:"name" personal:"true"`
}

// EventName implements Payload.
func (UserSignUpRepeated) EventName() string { return "user.signup_repeated.v1" }

// EventTopics implements Payload.
func (UserSignUpRepeated) EventTopics() []Topic { return []Topic{Audit, Email} }

// EventOutcome says that this is a failure.
func (UserSignUpRepeated) EventOutcome() Outcome { return Failure }

// UserVerificationResendRequested says that somebody asked for another mail to
// verify an address. The subject is empty when no account has it.
type UserVerificationResendRequested struct{}

// EventName implements Payload.
func (UserVerificationResendRequested) EventName() string {
	return "user.verification_resend_requested.v1"
}

// EventTopics implements Payload.
func (UserVerificationResendRequested) EventTopics() []Topic { return []Topic{Audit} }

// UserMailCapped says that a mail was not sent because its address got too many
// of late. Purpose is what it was asked for.
type UserMailCapped struct {
	Purpose string `json:"purpose"`
}

// EventName implements Payload.
func (UserMailCapped) EventName() string { return "user.mail_capped.v1" }

// EventTopics implements Payload.
func (UserMailCapped) EventTopics() []Topic { return []Topic{Audit} }

// EventOutcome says that this was refused.
func (UserMailCapped) EventOutcome() Outcome { return Denied }
