package account

import (
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
)

// Codes are parsed before an attempt is counted: an input without the shape of a code is a
// typing error and costs no attempt.

// parseCode parses a code of a second factor.
func parseCode(typed string) (string, *problem.Field) {
	code, ok := factor.ParseCode(typed)
	if !ok {
		return "", malformedCode("code", typed, "Enter the six digits of your authenticator app, or a recovery code of 24 letters and digits.")
	}
	return code, nil
}

// parseTOTPCode parses a code of an authenticator app.
func parseTOTPCode(typed string) (string, *problem.Field) {
	code, ok := factor.ParseTOTPCode(typed)
	if !ok {
		return "", malformedCode("code", typed, "Enter the six digits of your authenticator app.")
	}
	return code, nil
}

// parseMailCode parses a MailCode.
func parseMailCode(typed string) (string, *problem.Field) {
	code, ok := factor.ParseDigits(typed, mailCodeDigits)
	if !ok {
		return "", malformedCode("mailCode", typed, "Enter the eight digits in the newest email.")
	}
	return code, nil
}

func malformedCode(field, typed, message string) *problem.Field {
	if missing := required(field, typed, message); missing != nil {
		return missing
	}
	return &problem.Field{Field: field, Code: "invalid_format", Message: message}
}
