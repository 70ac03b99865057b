package web

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/textfield"
)

// The limits of a request body.
const (
	MaxBody    = 64 << 10
	maxNesting = 32
)

// Read decodes the JSON body of r strictly: it rejects unknown and duplicate fields, null for
// a field that is not raw JSON, names in the wrong case, trailing data, invalid UTF-8 and
// nesting over 32 levels. A request with neither a body nor a Content-Type counts as an empty
// object. Its errors are problems; their message says where and how the body is wrong, and
// never quotes it.
func Read[T any](w http.ResponseWriter, r *http.Request) (T, error) {
	body, err := readBody(w, r)
	if err != nil {
		var zero T
		return zero, err
	}
	return Decode[T](body)
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if err := CheckEncoding(w, r); err != nil {
		return nil, err
	}
	typeErr := checkType(r)
	typed := r.Header.Get("Content-Type") != ""
	if typed && typeErr != nil {
		return nil, refuseType(w, r, typeErr)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err != nil {
		return nil, BodyFault(err)
	}
	if typed {
		return body, nil
	}
	if len(body) > 0 {
		return nil, refuseType(w, r, typeErr)
	}
	return []byte("{}"), nil
}

func refuseType(w http.ResponseWriter, r *http.Request, err error) error {
	if r.Method == http.MethodPatch {
		w.Header().Set("Accept-Patch", AcceptPatch)
	}
	return err
}

// BodyFault returns the problem of a request whose body could not be read because of err: it
// is too large, too slow, or malformed or cut off.
func BodyFault(err error) error {
	p := problem.ErrMalformedBody
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		p = problem.ErrTooLarge
	} else if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() {
		p = problem.ErrRequestTimeout
	}
	return fmt.Errorf("read body: %w: %w", err, p)
}

// Decode is Read for a body that was already read.
func Decode[T any](body []byte) (T, error) {
	var in, zero T
	err := json.Unmarshal(body, &in, strict(body))
	if err == nil && startsObject(body) && !mayNestTooDeeply(body) {
		return withoutNUL(in, body)
	}
	// A second pass, so that a syntax error anywhere takes precedence over an unknown or
	// mistyped field before it.
	if err := checkSyntax(body, nil); err != nil {
		return zero, err
	}
	if err == nil {
		return withoutNUL(in, body)
	}
	semantic, ok := errors.AsType[*json.SemanticError](err)
	if !ok || semantic.JSONPointer == "" {
		return zero, malformed("wrong type")
	}
	field := fieldOf(semantic.JSONPointer)
	if errors.Is(err, json.ErrUnknownName) {
		return zero, problem.Validation(problem.Field{Field: field, Code: "unknown_field", Message: "Unknown field."})
	}
	message := "This field has the wrong type."
	if errors.Is(err, errNull) {
		message = "This field cannot be null: leave it out, or give it a value."
	}
	return zero, problem.Validation(problem.Field{Field: field, Code: "invalid_type", Message: message})
}

// withoutNUL returns in unless a string or a name in its body has the NUL character, which
// Postgres stores neither in text nor in jsonb.
func withoutNUL[T any](in T, body []byte) (T, error) {
	if !bytes.Contains(body, []byte(`\u0000`)) { // the only way to write it in JSON
		return in, nil
	}
	for d := jsontext.NewDecoder(bytes.NewBuffer(body)); ; {
		token, err := d.ReadToken()
		if err != nil { // the end
			return in, nil //nolint:nilerr // The syntax was checked.
		}
		if token.Kind() == '"' && strings.Contains(token.String(), "\x00") {
			var zero T
			field := strings.ReplaceAll(fieldOf(d.StackPointer()), "\x00", `\u0000`)
			return zero, problem.Validation(textfield.NUL(field))
		}
	}
}

// startsObject tells an object from null, which decodes into everything.
func startsObject(body []byte) bool {
	rest := trimmed(body)
	return len(rest) > 0 && rest[0] == '{'
}

// mayNestTooDeeply is false if body has too few brackets to nest too deeply. json
// itself nests up to 10,000 levels. Counting costs next to nothing, and almost no
// body has so many.
func mayNestTooDeeply(body []byte) bool {
	return bytes.Count(body, []byte{'{'})+bytes.Count(body, []byte{'['}) > maxNesting
}

func fieldOf(pointer jsontext.Pointer) string {
	return strings.Join(slices.Collect(pointer.Tokens()), ".")
}

// CheckBody returns the error that Read would return for the syntax of a body, and
// otherwise the value of a member of its object; the value is empty if there is no such
// member or if it is not a string. Names are compared exactly, as Read does. It is for
// a process that passes a request on: one pass over the body does both.
func CheckBody(body []byte, member string) (value string, err error) {
	m := &stringMember{name: member}
	if err := checkSyntax(body, m); err != nil {
		return "", err
	}
	return m.value, nil
}

// stringMember takes a member from the tokens of an object.
type stringMember struct {
	name, value string
	next        bool // The member's value is the next token.
}

// take looks at the token that d has just read.
func (m *stringMember) take(d *jsontext.Decoder, t jsontext.Token) {
	if d.StackDepth() != 1 {
		m.next = false
		return
	}
	_, read := d.StackIndex(1) // Names and values; a name makes them odd.
	switch {
	case read%2 == 1:
		m.next = t.String() == m.name
	case m.next && t.Kind() == '"':
		m.value = t.String()
	}
}

// checkSyntax returns nil if body is one object and nothing else. It shows member, if
// that is not nil, every token.
func checkSyntax(body []byte, member *stringMember) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(body)) // A Buffer is read in place, a Reader is copied.
	switch {
	case len(trimmed(body)) == 0:
		return malformed("it is empty")
	case bytes.HasPrefix(body, []byte("\ufeff")):
		return malformed("it begins with a byte order mark")
	case !utf8.Valid(body):
		return malformed("invalid UTF-8")
	}
	for isObject := d.PeekKind() == '{'; ; {
		token, err := d.ReadToken()
		switch {
		case err != nil:
			return syntaxFault(err)
		case d.StackDepth() > maxNesting:
			return malformed(fmt.Sprintf("nested more than %d levels deep at byte %d", maxNesting, d.InputOffset()))
		case d.StackDepth() > 0:
			if member != nil {
				member.take(d, token)
			}
			continue
		case len(trimmed(body[d.InputOffset():])) > 0:
			return malformed(fmt.Sprintf("data after the JSON value, from byte %d", d.InputOffset()))
		case !isObject: // The body is valid JSON.
			return malformed("it must be a JSON object")
		}
		return nil
	}
}

func trimmed(body []byte) []byte { return bytes.Trim(body, " \t\r\n") }

// syntaxFault describes err by its kind and position. The text of err itself would
// quote the body.
func syntaxFault(err error) error {
	kind := "invalid JSON"
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		kind = "the JSON ends too early"
	case errors.Is(err, jsontext.ErrNonStringName):
		kind = "a name is not a string"
	case errors.Is(err, jsontext.ErrDuplicateName):
		kind = "duplicate field"
	}
	syntactic, ok := errors.AsType[*jsontext.SyntacticError](err)
	if !ok {
		return malformed(kind)
	}
	var fields []problem.Field
	if errors.Is(err, jsontext.ErrDuplicateName) {
		fields = append(fields, problem.Field{Field: fieldOf(syntactic.JSONPointer), Code: "duplicate_field", Message: "Duplicate field."})
	}
	return fmt.Errorf("at %q: %w", syntactic.JSONPointer, malformed(fmt.Sprintf("%s at byte %d", kind, syntactic.ByteOffset), fields...))
}

// malformed returns ErrMalformedBody with the reason.
func malformed(why string, fields ...problem.Field) error {
	p := *problem.ErrMalformedBody
	p.Message = "Malformed request body: " + why + "."
	p.Fields = fields
	return fmt.Errorf("decode body: %w", &p)
}
