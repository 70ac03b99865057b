package account

import (
	"strings"

	"github.com/headgate/headgate/pkg/mailaddr"
	"github.com/headgate/headgate/pkg/problem"
)

// Email is an email address. Address is where mail is sent: the local part as
// entered, the domain in ASCII. Two addresses with the same Key are the same.
type Email struct {
	Address string
	Key     string
}

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

// ParseEmail parses an address as package mailaddr does.
func ParseEmail(text string) (Email, *problem.Field) {
	if strings.TrimSpace(text) == "" {
		return Email{}, &errEmailRequired
	}
	parsed, ok := mailaddr.Parse(text)
	if !ok {
		return Email{}, &errEmailFormat
	}
	return Email{Address: parsed.Text, Key: parsed.Key}, nil
}

func localPart(e Email) string {
	local, _, _ := strings.Cut(e.Address, "@")
	return local
}
