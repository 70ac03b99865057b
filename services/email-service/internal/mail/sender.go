package mail

import (
	"errors"
	"fmt"
	"net/mail"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
)

// ParseSender parses the address of a sender, such as Example <no-reply@example.com>. Its
// domain is returned in ASCII (RFC 5890), because few mail servers accept another.
func ParseSender(text string) (*mail.Address, error) {
	from, err := mail.ParseAddress(text)
	if err != nil {
		return nil, errors.New("want Name <name@example.com>")
	}
	at := strings.LastIndexByte(from.Address, '@')
	local, domain := from.Address[:at], from.Address[at+1:]
	if !isASCII(local) {
		return nil, errors.New("want only ASCII characters before the @")
	}
	ascii, err := ASCIIName(domain)
	if err != nil {
		return nil, fmt.Errorf("want a valid domain after the @: %w", err)
	}
	from.Address = local + "@" + ascii
	return from, nil
}

// DomainOf returns the domain of an address from ParseSender.
func DomainOf(from *mail.Address) string {
	return from.Address[strings.LastIndexByte(from.Address, '@')+1:]
}

// ASCIIName returns the ASCII form of the name of a domain or a host (RFC 5890). An ASCII name
// is returned as it is, also one that only a local resolver accepts.
func ASCIIName(name string) (string, error) {
	if isASCII(name) {
		return name, nil
	}
	return idna.Lookup.ToASCII(name)
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool { return c > unicode.MaxASCII })
}
