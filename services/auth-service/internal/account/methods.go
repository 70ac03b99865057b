package account

import (
	"slices"
	"strings"

	"github.com/headgate/headgate/pkg/token"
)

// Methods are how the owner of a session was authenticated: values of amr (RFC 8176),
// separated by spaces. They are empty for a session of an earlier release.
type Methods string

// The methods. A recovery code is a one-time password, too. A passkey is a key whose
// authenticator has verified its user; nothing proves that it is in hardware.
const (
	byPassword Methods = "pwd"
	byCode     Methods = "otp"
	byPasskey  Methods = "pop user"
	byMail     Methods = "mail" // a mailed code; of proofs only
)

// with returns the methods and others, each once.
func (m Methods) with(others Methods) Methods {
	all := strings.Fields(string(m))
	for other := range strings.FieldsSeq(string(others)) {
		if !slices.Contains(all, other) {
			all = append(all, other)
		}
	}
	return Methods(strings.Join(all, " "))
}

// include reports whether one of the methods is the given one.
func (m Methods) include(one Methods) bool {
	return slices.Contains(strings.Fields(string(m)), string(one))
}

// twoFactors reports whether the owner has shown two factors. A passkey counts as two.
func (m Methods) twoFactors() bool {
	return m.include("user") || m.include(byPassword) && m.include(byCode)
}

// AMR returns the methods as the claim amr, with mfa if there were two factors.
func (m Methods) AMR() []string {
	all := strings.Fields(string(m))
	if m.twoFactors() {
		all = append(all, "mfa")
	}
	return all
}

// Level returns the methods as the claim acr.
func (m Methods) Level() string {
	if m.twoFactors() {
		return token.AAL2
	}
	return token.AAL1
}
