// Package mailaddr parses email addresses and tells which of them are the same, so that all
// services count and store a person's address alike.
package mailaddr

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Address is an email address. Text is where mail is sent: the local part as entered, the
// domain in ASCII. Two addresses with the same Key are the same.
type Address struct {
	Text string
	Key  string
}

const (
	maxAddress = 254
	maxLocal   = 64
	maxLabel   = 63
)

// Parse parses an address (RFC 5321, without quoted local parts, without SMTPUTF8 and
// without IP addresses as domains); ok is false if it is invalid. Its key folds the case of
// ASCII letters only: folding others, such as the Kelvin sign, could turn one person's
// address into another's. Spaces and invisible characters around the address, which are
// pasted along, are ignored.
func Parse(text string) (a Address, ok bool) {
	text = strings.TrimFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) })
	local, domain, ok := strings.Cut(text, "@")
	if !ok || len(text) > maxAddress || !validLocal(local) {
		return Address{}, false
	}
	// idna takes a byte that is not UTF-8 for a letter, and then rejects its own result.
	if !utf8.ValidString(domain) {
		return Address{}, false
	}
	ascii, err := idna.Lookup.ToASCII(domain)
	if err != nil || !validDomain(ascii) {
		return Address{}, false
	}
	ascii = lowerASCII(ascii)
	a = Address{Text: local + "@" + ascii, Key: lowerASCII(local) + "@" + ascii}
	if len(a.Text) > maxAddress {
		return Address{}, false
	}
	return a, true
}

// Mailbox returns the key that addresses share which usually deliver to one mailbox: it cuts
// what follows a plus sign in the local part, and the dots that Gmail ignores. It is for
// limits only. Elsewhere they may be different addresses.
func Mailbox(key string) string {
	local, domain, _ := strings.Cut(key, "@")
	if base, _, tagged := strings.Cut(local, "+"); tagged && base != "" {
		local = base
	}
	if domain == "googlemail.com" {
		domain = "gmail.com"
	}
	if domain == "gmail.com" {
		local = strings.ReplaceAll(local, ".", "")
	}
	return local + "@" + domain
}

// validLocal reports whether s is a dot-atom (RFC 5322, 3.2.3).
func validLocal(s string) bool {
	if s == "" || len(s) > maxLocal || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	for _, c := range []byte(s) {
		if !alphanumeric(c) && !strings.ContainsRune(".!#$%&'*+-/=?^_`{|}~", rune(c)) {
			return false
		}
	}
	return true
}

func validDomain(s string) bool {
	labels := strings.Split(s, ".")
	if len(labels) < 2 || isNumber(labels[len(labels)-1]) {
		return false
	}
	for _, label := range labels {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if !alphanumeric(c) && c != '-' {
				return false
			}
		}
	}
	return true
}

// isNumber reports whether programs may read a domain with this last label as an IPv4
// address. They accept octal and hexadecimal numbers, too.
func isNumber(label string) bool {
	digits, hex := strings.CutPrefix(strings.ToLower(label), "0x")
	if hex {
		return strings.Trim(digits, "0123456789abcdef") == ""
	}
	return strings.Trim(digits, "0123456789") == ""
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
