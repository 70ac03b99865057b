package event

// Contracts returns one zero value of every payload, in the order of their
// names. contracts.txt, the golden samples and the generated documentation
// follow it.
func Contracts() []Payload {
	return []Payload{
		AccessDenied{},
		DeadLetterDiscarded{},
		DeadLetterReplayed{},
		EmailDeferred{},
		EmailFailed{},
		EmailSent{},
		SessionRefreshReused{},
		SessionRefreshed{},
		SessionRevoked{},
		UserDeleted{},
		UserDisabled{},
		UserEmailVerified{},
		UserEnabled{},
		UserLoggedIn{},
		UserLoggedOut{},
		UserLoginFailed{},
		UserProfileUpdated{},
		UserRoleChanged{},
		UserSignedUp{},
		UserVerificationRequested{},
	}
}
