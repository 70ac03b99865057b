package account

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/headgate/headgate/pkg/problem"
)

// maxLine is how many characters a line has at most.
const maxLine = 100

// parseLine reads a line that people see, such as a name.
func parseLine(field, text string) (string, *problem.Field) {
	text = strings.TrimSpace(text)
	if utf8.RuneCountInString(text) > maxLine {
		return "", &problem.Field{Field: field, Code: "too_long", Message: "This is too long."}
	}
	for _, r := range text {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r == utf8.RuneError {
			return "", &problem.Field{Field: field, Code: "invalid_format", Message: "This has characters that cannot be used."}
		}
	}
	return text, nil
}

func parseName(text string) (string, *problem.Field) {
	name, fault := parseLine("name", text)
	if fault == nil {
		fault = required("name", name, "A name is needed.")
	}
	return name, fault
}

// required checks a value that needs no other check here.
func required(field, text, message string) *problem.Field {
	if text != "" {
		return nil
	}
	return &problem.Field{Field: field, Code: "required", Message: message}
}

// faults collects what is wrong with several fields.
func faults(fields ...*problem.Field) error {
	var found []problem.Field
	for _, f := range fields {
		if f != nil {
			found = append(found, *f)
		}
	}
	return problem.Validation(found...)
}
