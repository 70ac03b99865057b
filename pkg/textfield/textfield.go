// Package textfield checks the text that people write: names, which are one line, and longer
// texts. Limits count characters. It knows no field.
package textfield

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/headgate/headgate/pkg/problem"
)

// NULCode is the code of a field with the NUL character, which Postgres cannot store.
const NULCode = "nul_character"

// NUL returns what is wrong with a field that contains the NUL character.
func NUL(field string) problem.Field {
	return problem.Field{Field: field, Code: NULCode, Message: "The NUL character (U+0000) is not allowed."}
}

// Line trims and checks a line of text, such as a name, of at most limit characters. It
// refuses what hides or reorders the text around it in a mail or a table: control characters,
// line breaks and bidirectional overrides and isolates. The joiners and marks that scripts
// need are accepted. Text without a visible character becomes empty.
func Line(field, text string, limit int) (string, *problem.Field) {
	text = strings.TrimSpace(text)
	switch {
	case strings.ContainsFunc(text, reorders):
		return "", &problem.Field{Field: field, Code: "invalid_format", Message: "Characters that change the direction of text (U+202A to U+202E, U+2066 to U+2069) are not allowed."}
	case strings.ContainsAny(text, "\t\n\r\u2028\u2029"):
		return "", &problem.Field{Field: field, Code: "invalid_format", Message: "Control characters and line breaks are not allowed."}
	}
	if fault := check(field, text, limit); fault != nil {
		return "", fault
	}
	if !strings.ContainsFunc(text, visible) {
		return "", nil
	}
	return text, nil
}

// Lines checks a text of several lines, of at most limit characters. Tabs and line breaks,
// of Windows too, are kept as they are.
func Lines(field, text string, limit int) (string, *problem.Field) {
	if fault := check(field, text, limit); fault != nil {
		return "", fault
	}
	return text, nil
}

func check(field, text string, limit int) *problem.Field {
	switch {
	case strings.ContainsRune(text, 0):
		fault := NUL(field)
		return &fault
	case utf8.RuneCountInString(text) > limit:
		return &problem.Field{Field: field, Code: "too_long", Message: fmt.Sprintf("Too long: use at most %d characters.", limit)}
	case strings.ContainsFunc(text, unprintable):
		return &problem.Field{Field: field, Code: "invalid_format", Message: "Control characters are not allowed."}
	}
	return nil
}

// unprintable also finds invalid UTF-8.
func unprintable(r rune) bool {
	return unicode.IsControl(r) && r != '\t' && r != '\n' && r != '\r' || r == utf8.RuneError
}

func reorders(r rune) bool {
	return r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069'
}

func visible(r rune) bool {
	return unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S)
}
