// Package factor checks what the owner of an account has besides a password: a
// TOTP app, recovery codes and passkeys. Its functions keep nothing: callers pass
// in what is stored and the time, and store what they get back. It knows no
// accounts, no HTTP and no SQL.
package factor

import (
	"errors"
	"fmt"
)

// The kinds of factors. With a TOTP factor, a login needs a code after the
// password. A passkey signs in without a password.
const (
	KindTOTP    = "totp"
	KindPasskey = "passkey"
)

// RecoveryCode is how the API names recovery codes among the factors that a login
// accepts. A recovery code stands in for a TOTP app.
const RecoveryCode = "recovery_code"

// ErrRejected says that a passkey's answer is malformed or proves nothing.
var ErrRejected = errors.New("passkey rejected")

// ErrCopied is an ErrRejected for a passkey that has signed an answer with an old counter, so
// it was probably copied.
var ErrCopied = fmt.Errorf("%w: its counter did not advance", ErrRejected)
