package event

import (
	"reflect"
	"slices"
	"strings"
)

// Contracts returns a zero value of every payload, in the order of their names.
// contracts.txt, the golden samples and the documentation follow this order.
func Contracts() []Payload {
	return []Payload{
		AccessDenied{},
		AuditAppended{},
		AuditRead{},
		DeadLetterAdded{},
		DeadLetterDiscarded{},
		DeadLetterReplayed{},
		EmailDeferred{},
		EmailFailed{},
		EmailResumed{},
		EmailSent{},
		GapAccepted{},
		MFAChallengeFailed{},
		MFAChallenged{},
		MFAEnrolmentBegun{},
		MFAEnrolled{},
		MFARecoveryCodeUsed{},
		MFARecoveryCodesMade{},
		MFARemoved{},
		MFARenamed{},
		MFAReset{},
		RateLimitCleared{},
		RateLimitExceeded{},
		RequestRefused{},
		SessionsAllRevoked{},
		SessionRefreshReused{},
		SessionRefreshed{},
		SessionRevoked{},
		SigningKeyRetired{},
		SigningKeyRotated{},
		UserDataExported{},
		UserDeleted{},
		UserDeletionCancelled{},
		UserDeletionScheduled{},
		UserDisabled{},
		UserEmailChangeLinkIssued{},
		UserEmailChangeRequested{},
		UserEmailChanged{},
		UserEmailRevertLinkIssued{},
		UserReauthCodeIssued{},
		UserSignedInFromNewDevice{},
		UserGuessed{},
		UserPasswordRemoved{},
		UserEmailVerified{},
		UserEnabled{},
		UserExportLinkIssued{},
		UserExported{},
		UserListed{},
		UserLoggedIn{},
		UserLoggedOut{},
		UserLoginFailed{},
		UserMailCapped{},
		UserPasswordChanged{},
		UserPasswordResetRequested{},
		UserProfileUpdated{},
		UserReauthenticated{},
		UserResetLinkIssued{},
		UserRoleChanged{},
		UserSessionsRevoked{},
		UserSignInLimited{},
		UserSignedUp{},
		UserSignUpRepeated{},
		UserVerificationRequested{},
		UserVerificationResendRequested{},
		UserViewed{},
	}
}

// Personal returns the JSON names of all payload fields that hold personal data, as
// marked by the tag personal. They are erased when the subject's account is deleted.
func Personal() []string {
	var names []string
	for _, p := range Contracts() {
		for field := range reflect.TypeOf(p).Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if field.Tag.Get("personal") == "true" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}
