package factor

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

const (
	totpDigits    = 6
	recoveryChars = recoveryBytes * 8 / 5
	maxTyped      = 256 // bytes; a code needs at most half of it, however it is grouped
)

// ParseCode returns a TOTP code or a recovery code as it is checked, from what a person has
// typed; ok is false if it has the shape of neither, so that it cannot be right. Any space,
// dash, case or script of the digits may be typed.
func ParseCode(typed string) (code string, ok bool) {
	return shaped(typed, func(code string) bool { return isDigits(code, totpDigits) || isRecoveryCode(code) })
}

// ParseTOTPCode is ParseCode for a TOTP code alone.
func ParseTOTPCode(typed string) (code string, ok bool) { return ParseDigits(typed, totpDigits) }

// ParseDigits is ParseCode for a code of n digits.
func ParseDigits(typed string, n int) (code string, ok bool) {
	return shaped(typed, func(code string) bool { return isDigits(code, n) })
}

func shaped(typed string, valid func(code string) bool) (string, bool) {
	if code := plain(typed); valid(code) {
		return code, true
	}
	return "", false
}

// plain returns typed without what separates the characters of a code, in lower case and
// with ASCII digits. Keyboards and other programs write each of these in several ways:
// full-width characters, the digits of the language, dashes that replace hyphens, invisible
// marks that are copied along.
func plain(typed string) string {
	if len(typed) > maxTyped {
		return ""
	}
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Pd, r):
			return -1
		case r == '−', r == 'ー': // A minus sign, and what the dash key of a Japanese keyboard types.
			return -1
		case unicode.IsDigit(r):
			return '0' + digit(r)
		}
		return unicode.ToLower(r)
	}, norm.NFKC.String(typed))
}

// digit returns the value of a decimal digit of any script. Unicode has them in groups of
// ten, from zero to nine (The Unicode Standard, 4.6).
func digit(r rune) rune {
	first := r
	for unicode.IsDigit(first - 1) {
		first--
	}
	return (r - first) % 10
}

func isDigits(code string, n int) bool {
	return len(code) == n && strings.Trim(code, "0123456789") == ""
}

func isRecoveryCode(code string) bool {
	return len(code) == recoveryChars && strings.Trim(code, recoveryAlphabet) == ""
}
