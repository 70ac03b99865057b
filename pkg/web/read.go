package web

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

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
// refused. Its errors are problems.
func Read[T any](w http.ResponseWriter, r *http.Request) (T, error) {
	var in T
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" || params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8") {
		return in, problem.ErrMediaType
	}
	if r.Header.Get("Content-Encoding") != "" {
		return in, problem.ErrMediaType
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok && tooLarge != nil {
		return in, problem.ErrTooLarge
	}
	if err != nil {
		return in, problem.ErrMalformedBody
	}
	return Decode[T](body)
}

// Decode is Read for bytes that are already at hand.
func Decode[T any](body []byte) (T, error) {
	var in T
	if err := checkNesting(body); err != nil {
		return in, problem.ErrMalformedBody
	}
	err := json.Unmarshal(body, &in, json.RejectUnknownMembers(true))
	if err == nil {
		return in, nil
	}
	var zero T
	semantic, ok := errors.AsType[*json.SemanticError](err)
	field := ""
	if ok {
		field = strings.ReplaceAll(strings.TrimPrefix(string(semantic.JSONPointer), "/"), "/", ".")
	}
	switch {
	case field == "":
		return zero, problem.ErrMalformedBody
	case errors.Is(err, json.ErrUnknownName):
		return zero, problem.Validation(problem.Field{Field: field, Code: "unknown_field", Message: "This field is not known here."})
	}
	return zero, problem.Validation(problem.Field{Field: field, Code: "invalid_type", Message: "This field has a value of the wrong type."})
}

// checkNesting also refuses a body whose top level is not an object.
func checkNesting(body []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(body))
	if d.PeekKind() != '{' {
		return errors.New("not an object")
	}
	for {
		_, err := d.ReadToken()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if d.StackDepth() > maxNesting {
			return errors.New("nested too deeply")
		}
	}
}
