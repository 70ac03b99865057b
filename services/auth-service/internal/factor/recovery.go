package factor

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"strings"
)

const (
	recoveryCodes = 10
	recoveryBytes = 15 // 120 bits, which need no slow hash

	recoveryAlphabet = "abcdefghijklmnopqrstuvwxyz234567" // base32, in lower case
)

var recoveryEncoding = base32.NewEncoding(recoveryAlphabet)

// NewRecoveryCodes returns ten random codes in four groups of six characters.
func NewRecoveryCodes() []string {
	codes := make([]string, recoveryCodes)
	for i := range codes {
		var b [recoveryBytes]byte
		rand.Read(b[:])
		text := recoveryEncoding.EncodeToString(b[:])
		codes[i] = strings.Join([]string{text[:6], text[6:12], text[12:18], text[18:]}, "-")
	}
	return codes
}

// HashRecoveryCode returns the hash under which a code is stored, in hexadecimal. It is
// that of every way in which ParseCode accepts the code.
func HashRecoveryCode(code string) string {
	sum := sha256.Sum256([]byte(plain(code)))
	return hex.EncodeToString(sum[:])
}
