package web

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/headgate/headgate/pkg/problem"
)

// The limits of a request body.
const (
	MaxBody    = 64 << 10
	maxNesting = 32
)

// Read decodes the JSON body of r strictly: an unknown or duplicate member, a
// name in the wrong case, trailing data, invalid UTF-8 or too deep a nesting is
// refused. A request with neither a body nor a Content-Type is one with an empty
// object. Its errors are problems, and what they say beyond them is where the
// body is wrong and how, and none of its values.
func Read[T any](w http.ResponseWriter, r *http.Request) (T, error) {
	body, err := readBody(w, r)
	if err != nil {
		var zero T
		return zero, err
	}
	return Decode[T](body)
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	contentType := r.Header.Get("Content-Type")
	if contentType != "" && !isJSON(contentType) || r.Header.Get("Content-Encoding") != "" {
		return nil, problem.ErrMediaType
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok && tooLarge != nil {
		return nil, problem.ErrTooLarge
	}
	if err != nil {
		return nil, fmt.Errorf("read body: %w: %w", err, problem.ErrMalformedBody)
	}
	if contentType != "" {
		return body, nil
	}
	if len(body) > 0 {
		return nil, problem.ErrMediaType
	}
	return []byte("{}"), nil
}

func isJSON(contentType string) bool {
	kind, params, err := mime.ParseMediaType(contentType)
	return err == nil && kind == "application/json" && (params["charset"] == "" || strings.EqualFold(params["charset"], "utf-8"))
}

// Decode is Read for bytes that are already at hand.
func Decode[T any](body []byte) (T, error) {
	var in, zero T
	if err := checkSyntax(body); err != nil {
		return zero, err
	}
	err := json.Unmarshal(body, &in, json.RejectUnknownMembers(true))
	if err == nil {
		return in, nil
	}
	semantic, ok := errors.AsType[*json.SemanticError](err)
	if !ok || semantic.JSONPointer == "" {
		return zero, malformed("of the wrong type")
	}
	field := fieldOf(semantic.JSONPointer)
	if errors.Is(err, json.ErrUnknownName) {
		return zero, problem.Validation(problem.Field{Field: field, Code: "unknown_field", Message: "This field is not known here."})
	}
	return zero, problem.Validation(problem.Field{Field: field, Code: "invalid_type", Message: "This field has a value of the wrong type."})
}

func fieldOf(pointer jsontext.Pointer) string {
	return strings.Join(slices.Collect(pointer.Tokens()), ".")
}

// CheckBody returns the problem that Read would have with the syntax of a body, if
// its Content-Type is JSON. It is for who passes a request on.
func CheckBody(contentType string, body []byte) error {
	if len(body) == 0 || !isJSON(contentType) {
		return nil
	}
	return checkSyntax(body)
}

// checkSyntax returns nil if body is one object and nothing else.
func checkSyntax(body []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(body))
	switch {
	case len(trimmed(body)) == 0:
		return malformed("empty")
	case bytes.HasPrefix(body, []byte("\ufeff")):
		return malformed("begins with a byte order mark")
	case !utf8.Valid(body):
		return malformed("invalid UTF-8")
	case d.PeekKind() != '{':
		return malformed("not an object")
	}
	for {
		_, err := d.ReadToken()
		switch {
		case err != nil:
			return syntaxFault(err)
		case d.StackDepth() > maxNesting:
			return malformed(fmt.Sprintf("nested too deeply at byte %d", d.InputOffset()))
		case d.StackDepth() > 0:
			continue
		case len(trimmed(body[d.InputOffset():])) > 0:
			return malformed(fmt.Sprintf("data after the object, from byte %d", d.InputOffset()))
		}
		return nil
	}
}

func trimmed(body []byte) []byte { return bytes.Trim(body, " \t\r\n") }

// syntaxFault tells the kind of err and its place. The text of err would quote
// the body.
func syntaxFault(err error) error {
	kind := "not JSON"
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		kind = "ends too early"
	case errors.Is(err, jsontext.ErrNonStringName):
		kind = "a name is no string"
	case errors.Is(err, jsontext.ErrDuplicateName):
		kind = "a field is there twice"
	}
	syntactic, ok := errors.AsType[*jsontext.SyntacticError](err)
	if !ok {
		return malformed(kind)
	}
	var twice []problem.Field
	if errors.Is(err, jsontext.ErrDuplicateName) {
		twice = append(twice, problem.Field{Field: fieldOf(syntactic.JSONPointer), Code: "duplicate_field", Message: "This field is there twice."})
	}
	return malformed(fmt.Sprintf("%s at byte %d, at %q", kind, syntactic.ByteOffset, syntactic.JSONPointer), twice...)
}

// malformed returns ErrMalformedBody with what is wrong, for who develops a
// client.
func malformed(why string, fields ...problem.Field) error {
	p := *problem.ErrMalformedBody
	p.Fields = fields
	return fmt.Errorf("decode body: %s: %w", why, &p)
}
