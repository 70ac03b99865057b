package service

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Brand is the part of the configuration of a service that has texts for people.
type Brand struct {
	BrandName string `envconfig:"BRAND_NAME" default:"Headgate" desc:"The name of your product, at most 50 characters: in mails, on pages, in authenticator apps, in the API document and when a passkey is created. Set the same for auth-service, email-service and the gateway."`
}

const maxBrandName = 50

// Validate implements Validator. The name is in headers of mails, so it has one line.
func (b Brand) Validate() error {
	if n := utf8.RuneCountInString(b.BrandName); n > maxBrandName || !utf8.ValidString(b.BrandName) ||
		strings.TrimSpace(b.BrandName) != b.BrandName || strings.ContainsFunc(b.BrandName, invisible) || !strings.ContainsFunc(b.BrandName, unicode.IsLetter) {
		return errors.New("BRAND_NAME: want one line of at most 50 characters, one of them alphabetic, without spaces around it")
	}
	return nil
}

// invisible reports whether r breaks a line or changes how others are displayed. Joiners are
// allowed: some scripts and emoji need them.
func invisible(r rune) bool {
	const joiner, nonJoiner = '\u200d', '\u200c'
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Cf, r) && r != joiner && r != nonJoiner
}
