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
)

// NewRecoveryCodes returns ten random codes in four groups of six characters.
func NewRecoveryCodes() []string {
	codes := make([]string, recoveryCodes)
	for i := range codes {
		var b [recoveryBytes]byte
		rand.Read(b[:])
		text := strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
		codes[i] = strings.Join([]string{text[:6], text[6:12], text[12:18], text[18:]}, "-")
	}
	return codes
}

// HashRecoveryCode returns the hash under which a code is stored, in hexadecimal.
// It ignores case, spaces and hyphens, because people copy codes in many ways.
func HashRecoveryCode(code string) string {
	normalized := strings.Map(func(r rune) rune {
		if r == '-' || r == ' ' {
			return -1
		}
		return r
	}, strings.ToLower(code))
	sum := sha256.Sum256([]byte(normalized))
	return hex.EncodeToString(sum[:])
}
