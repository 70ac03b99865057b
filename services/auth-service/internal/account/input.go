package account

import (
	"fmt"
	"slices"
	"strings"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/textfield"
)

// maxLine is the maximum length of a line, in characters.
const maxLine = 100

// parseLine trims and validates a line of text, such as a name.
func parseLine(field, text string) (string, *problem.Field) {
	return textfield.Line(field, text, maxLine)
}

func parseName(text string) (string, *problem.Field) {
	name, nameErr := parseLine("name", text)
	if nameErr == nil {
		nameErr = required("name", name, "Name is required.")
	}
	return name, nameErr
}

// required checks that a value is not empty.
func required(field, text, message string) *problem.Field {
	if text != "" {
		return nil
	}
	return &problem.Field{Field: field, Code: "required", Message: message}
}

// oneOf checks that a value is one of a fixed set.
func oneOf(field, value string, allowed []string) *problem.Field {
	if slices.Contains(allowed, value) {
		return nil
	}
	return &problem.Field{Field: field, Code: "unknown_value", Message: fmt.Sprintf("Unknown %s: use one of %s.", field, strings.Join(allowed, ", "))}
}

// validate returns one validation problem for all invalid fields, or nil.
func validate(fields ...*problem.Field) error {
	var invalid []problem.Field
	for _, f := range fields {
		if f != nil {
			invalid = append(invalid, *f)
		}
	}
	return problem.Validation(invalid...)
}
