package event

// UserSignedInFromNewDevice says that a session began in a network, or with a program, that
// no earlier session of the account was used from. Email and Name let email-service notify
// the owner.
type UserSignedInFromNewDevice struct {
	SessionID string `json:"sessionId"`
	Email     string `json:"email" personal:"true"`
	Name      string `json:"name" personal:"true"`
}

// EventName implements Payload.
func (UserSignedInFromNewDevice) EventName() string { return "user.signed_in_from_new_device.v1" }

// EventTopics implements Payload.
func (UserSignedInFromNewDevice) EventTopics() []Topic { return []Topic{Audit, Email} }

// UserGuessed says that somebody who has failed many times to sign in entered the right
// password. Method says what was guessed: password, before it was right, or code, after
// it. Email and Name let email-service notify the owner.
type UserGuessed struct {
	Method   string `json:"method"`
	Failures int    `json:"failures"`
	Email    string `json:"email" personal:"true"`
	Name     string `json:"name" personal:"true"`
}

// EventName implements Payload.
func (UserGuessed) EventName() string { return "user.guessed.v1" }

// EventTopics implements Payload.
func (UserGuessed) EventTopics() []Topic { return []Topic{Audit, Email} }

// UserPasswordRemoved says that the owner switched the password off and signs in with
// passkeys only. Email and Name let email-service notify the owner.
type UserPasswordRemoved struct {
	Email string `json:"email" personal:"true"`
	Name  string `json:"name" personal:"true"`
}

// EventName implements Payload.
func (UserPasswordRemoved) EventName() string { return "user.password_removed.v1" }

// EventTopics implements Payload.
func (UserPasswordRemoved) EventTopics() []Topic { return []Topic{Audit, Email} }
