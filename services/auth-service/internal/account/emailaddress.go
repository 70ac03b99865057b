package account

import (
	"strings"

	"golang.org/x/net/idna"

	"github.com/headgate/headgate/pkg/problem"
)

// Email is an email address. Address is where mail is sent: the local part as
// entered, the domain in ASCII. Two addresses with the same Key are the same.
type Email struct {
	Address string
	Key     string
}

const (
	maxEmail = 254
	maxLocal = 64
)

var (
	errEmailRequired = problem.Field{Code: "required", Message: "Email address is required."}
	errEmailFormat   = problem.Field{Code: "invalid_format", Message: "Invalid email address."}
)

// parseEmail is ParseEmail for a field of the input.
func parseEmail(field, text string) (Email, *problem.Field) {
	email, emailErr := ParseEmail(text)
	if emailErr != nil {
		named := *emailErr
		named.Field = field
		return Email{}, &named
	}
	return email, nil
}

// ParseEmail parses an address (RFC 5321, without quoted local parts and without
// SMTPUTF8). Its key folds the case of ASCII letters only: folding others, such as the
// Kelvin sign, could turn one person's address into another's.
func ParseEmail(text string) (Email, *problem.Field) {
	text = strings.TrimSpace(text)
	if text == "" {
		return Email{}, &errEmailRequired
	}
	local, domain, ok := strings.Cut(text, "@")
	if !ok || len(text) > maxEmail || !validLocal(local) {
		return Email{}, &errEmailFormat
	}
	ascii, err := idna.Lookup.ToASCII(domain)
	if err != nil || !validDomain(ascii) {
		return Email{}, &errEmailFormat
	}
	ascii = lowerASCII(ascii)
	e := Email{Address: local + "@" + ascii, Key: lowerASCII(local) + "@" + ascii}
	if len(e.Address) > maxEmail {
		return Email{}, &errEmailFormat
	}
	return e, nil
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
	if len(labels) < 2 {
		return false
	}
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
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

func localPart(e Email) string {
	local, _, _ := strings.Cut(e.Address, "@")
	return local
}
