package event

// Contracts returns one zero value of every payload, in the order of their
// names. contracts.txt, the golden samples and the generated documentation
// follow it.
func Contracts() []Payload {
	return []Payload{
		DeadLetterDiscarded{},
		DeadLetterReplayed{},
		EmailDeferred{},
		EmailFailed{},
		EmailSent{},
		SessionRefreshReused{},
		SessionRefreshed{},
		SessionRevoked{},
		UserEmailVerified{},
		UserLoggedIn{},
		UserLoggedOut{},
		UserLoginFailed{},
		UserProfileUpdated{},
		UserSignedUp{},
		UserVerificationRequested{},
	}
}
