package event

// MFAEnrolled says that an account has one more factor besides its password.
// Email and Name let email-service tell the owner.
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

// MFARemoved says that an account has one factor less. Email and Name let
// email-service tell the owner.
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

// MFAReset says that an administrator removed all factors of an account, whose
// owner has lost them. Removed is how many they were.
type MFAReset struct {
	Removed int `json:"removed"`
}

// EventName implements Payload.
func (MFAReset) EventName() string { return "mfa.reset.v1" }

// EventTopics implements Payload.
func (MFAReset) EventTopics() []Topic { return []Topic{Audit} }

// MFARenamed says that a factor has another name.
type MFARenamed struct {
	FactorID string `json:"factorId"`
	Kind     string `json:"kind"`
}

// EventName implements Payload.
func (MFARenamed) EventName() string { return "mfa.renamed.v1" }

// EventTopics implements Payload.
func (MFARenamed) EventTopics() []Topic { return []Topic{Audit} }

// MFAEnrolmentBegun says that somebody was shown the secret of a factor, which
// does not count yet.
type MFAEnrolmentBegun struct {
	FactorID string `json:"factorId"`
	Kind     string `json:"kind"`
}

// EventName implements Payload.
func (MFAEnrolmentBegun) EventName() string { return "mfa.enrolment_begun.v1" }

// EventTopics implements Payload.
func (MFAEnrolmentBegun) EventTopics() []Topic { return []Topic{Audit} }

// MFAChallenged says that a password was right and a second factor was asked for.
type MFAChallenged struct{}

// EventName implements Payload.
func (MFAChallenged) EventName() string { return "mfa.challenged.v1" }

// EventTopics implements Payload.
func (MFAChallenged) EventTopics() []Topic { return []Topic{Audit} }

// MFAChallengeFailed says that a second factor did not fit. Reason is the code
// that the client saw.
type MFAChallengeFailed struct {
	Reason string `json:"reason"`
}

// EventName implements Payload.
func (MFAChallengeFailed) EventName() string { return "mfa.challenge_failed.v1" }

// EventTopics implements Payload.
func (MFAChallengeFailed) EventTopics() []Topic { return []Topic{Audit} }

// EventOutcome says that this is a failure.
func (MFAChallengeFailed) EventOutcome() Outcome { return Failure }

// MFARecoveryCodeUsed says that a recovery code stood in for a factor.
type MFARecoveryCodeUsed struct {
	Left int `json:"left"`
}

// EventName implements Payload.
func (MFARecoveryCodeUsed) EventName() string { return "mfa.recovery_code_used.v1" }

// EventTopics implements Payload.
func (MFARecoveryCodeUsed) EventTopics() []Topic { return []Topic{Audit} }

// MFARecoveryCodesMade says that an account has new recovery codes, and that the
// older ones are void.
type MFARecoveryCodesMade struct{}

// EventName implements Payload.
func (MFARecoveryCodesMade) EventName() string { return "mfa.recovery_codes_made.v1" }

// EventTopics implements Payload.
func (MFARecoveryCodesMade) EventTopics() []Topic { return []Topic{Audit} }

// UserReauthenticated says that somebody who is signed in proved again who they
// are.
type UserReauthenticated struct {
	SessionID string `json:"sessionId"`
}

// EventName implements Payload.
func (UserReauthenticated) EventName() string { return "user.reauthenticated.v1" }

// EventTopics implements Payload.
func (UserReauthenticated) EventTopics() []Topic { return []Topic{Audit} }
