package event

import "time"

// MFAEnrolled says that a factor was added to an account. Email and Name let
// email-service notify the owner.
type MFAEnrolled struct {
	FactorID string `json:"factorId"`
	Kind     string `json:"kind"` // totp or passkey
	Email    string `json:"email" personal:"true"`
	Name     string `json:"name" personal:"true"`
}

// EventName implements Payload.
func (MFAEnrolled) EventName() string { return "mfa.enrolled.v1" }

// EventTopics implements Payload.
func (MFAEnrolled) EventTopics() []Topic { return []Topic{Audit, Email} }

// MFARemoved says that a factor was removed from an account. Email and Name let
// email-service notify the owner.
type MFARemoved struct {
	FactorID string `json:"factorId"`
	Kind     string `json:"kind"`
	Email    string `json:"email" personal:"true"`
	Name     string `json:"name" personal:"true"`
}

// EventName implements Payload.
func (MFARemoved) EventName() string { return "mfa.removed.v1" }

// EventTopics implements Payload.
func (MFARemoved) EventTopics() []Topic { return []Topic{Audit, Email} }

// MFAReset says that an administrator removed all factors of an account, because
// its owner lost them. Removed is their number.
type MFAReset struct {
	Removed int `json:"removed"`
}

// EventName implements Payload.
func (MFAReset) EventName() string { return "mfa.reset.v1" }

// EventTopics implements Payload.
func (MFAReset) EventTopics() []Topic { return []Topic{Audit} }

// MFARenamed says that a factor was renamed.
type MFARenamed struct {
	FactorID string `json:"factorId"`
	Kind     string `json:"kind"`
}

// EventName implements Payload.
func (MFARenamed) EventName() string { return "mfa.renamed.v1" }

// EventTopics implements Payload.
func (MFARenamed) EventTopics() []Topic { return []Topic{Audit} }

// MFAEnrolmentBegun says that the owner received the secret of a new factor, which
// is not active yet.
type MFAEnrolmentBegun struct {
	FactorID string `json:"factorId"`
	Kind     string `json:"kind"`
}

// EventName implements Payload.
func (MFAEnrolmentBegun) EventName() string { return "mfa.enrolment_begun.v1" }

// EventTopics implements Payload.
func (MFAEnrolmentBegun) EventTopics() []Topic { return []Topic{Audit} }

// MFAChallenged says that a password was correct and a second factor is required.
type MFAChallenged struct{}

// EventName implements Payload.
func (MFAChallenged) EventName() string { return "mfa.challenged.v1" }

// EventTopics implements Payload.
func (MFAChallenged) EventTopics() []Topic { return []Topic{Audit} }

// MFAChallengeFailed says that a second factor was wrong. Reason is the code in the
// response.
type MFAChallengeFailed struct {
	Reason string    `json:"reason"`
	Count  int       `json:"count,omitempty"` // see Countable
	Since  time.Time `json:"since,omitzero"`
}

// EventName implements Payload.
func (MFAChallengeFailed) EventName() string { return "mfa.challenge_failed.v1" }

// Counted implements Countable.
func (p MFAChallengeFailed) Counted(n int, since time.Time) Payload {
	p.Count, p.Since = n, since.UTC()
	return p
}

// EventTopics implements Payload.
func (MFAChallengeFailed) EventTopics() []Topic { return []Topic{Audit} }

// EventOutcome implements outcomer.
func (MFAChallengeFailed) EventOutcome() Outcome { return Failure }

// MFARecoveryCodeUsed says that a recovery code was used in place of a factor. Left
// is how many codes remain. Email and Name let email-service notify the owner.
type MFARecoveryCodeUsed struct {
	Left  int    `json:"left"`
	Email string `json:"email,omitempty" personal:"true"`
	Name  string `json:"name,omitempty" personal:"true"`
}

// EventName implements Payload.
func (MFARecoveryCodeUsed) EventName() string { return "mfa.recovery_code_used.v1" }

// EventTopics implements Payload.
func (MFARecoveryCodeUsed) EventTopics() []Topic { return []Topic{Audit, Email} }

// MFARecoveryCodesMade says that new recovery codes were generated, which replace
// the old ones. Email and Name let email-service notify the owner.
type MFARecoveryCodesMade struct {
	Email string `json:"email,omitempty" personal:"true"`
	Name  string `json:"name,omitempty" personal:"true"`
}

// EventName implements Payload.
func (MFARecoveryCodesMade) EventName() string { return "mfa.recovery_codes_made.v1" }

// EventTopics implements Payload.
func (MFARecoveryCodesMade) EventTopics() []Topic { return []Topic{Audit, Email} }

// UserReauthenticated says that a signed-in user confirmed their identity.
type UserReauthenticated struct {
	SessionID string `json:"sessionId"`
}

// EventName implements Payload.
func (UserReauthenticated) EventName() string { return "user.reauthenticated.v1" }

// EventTopics implements Payload.
func (UserReauthenticated) EventTopics() []Topic { return []Topic{Audit} }
