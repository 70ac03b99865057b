package web

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/textfield"
)

// Parameters are the query parameters that a route reads. Any other parameter is refused:
// if a misspelt or malformed filter were ignored, a list would show everything. The zero
// value is for a route that reads none.
type Parameters struct {
	names []string
	open  bool
}

// Takes returns the parameters with these names.
func Takes(names ...string) Parameters { return Parameters{names: names} }

// TakesPage returns the parameters of a list: these names, limit and cursor.
func TakesPage(names ...string) Parameters {
	return Takes(slices.Concat(names, []string{"limit", "cursor"})...)
}

// OrIgnores ignores all other parameters, and also those of its own that are invalid. It is
// for pages and documents, whose content no parameter narrows: mail programs, link trackers
// and caches add parameters to their URLs.
func (p Parameters) OrIgnores() Parameters {
	p.open = true
	return p
}

// Query holds the query parameters of a request. A parameter that the request does not have
// is empty. One that it has is not blank.
type Query map[string]string

type queryKey struct{}

// QueryOf returns the query parameters that the route of r reads.
func QueryOf(r *http.Request) Query {
	q, _ := r.Context().Value(queryKey{}).(Query)
	return q
}

// withQuery checks the query of r and returns r with its parameters.
func withQuery(r *http.Request, p Parameters) (*http.Request, error) {
	if r.URL.RawQuery == "" { // as almost always; a copy of r would say no more
		return r, nil
	}
	q, err := p.Read(r)
	if err != nil {
		return r, err
	}
	return r.WithContext(context.WithValue(r.Context(), queryKey{}, q)), nil
}

// Read returns the query parameters of a request that NewRouter does not handle. It fails
// with a validation problem that names each parameter that is unknown, repeated, malformed
// or empty.
func (p Parameters) Read(r *http.Request) (Query, error) {
	q, seen, faults := Query{}, map[string]bool{}, []problem.Field{}
	for part := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if part == "" { // as at the end of a query; it names nothing that could be lost
			continue
		}
		rawName, rawValue, _ := strings.Cut(part, "=")
		name, value, fault := p.parse(rawName, rawValue)
		if fault == nil && seen[name] {
			fault = parameterFault(name, "repeated", "Repeated query parameter: use it once.")
		}
		seen[name] = true
		if fault == nil {
			q[name] = value
			continue
		}
		delete(q, name)
		if !p.open && len(faults) < maxQueryFaults {
			faults = append(faults, *fault)
		}
	}
	return q, problem.Validation(faults...)
}

const (
	maxParameter   = 256 // characters
	maxQueryFaults = 20
	maxFaultName   = 64 // bytes
)

func parameterFault(name, code, message string) *problem.Field {
	if name == "" {
		name = "query"
	}
	name = strings.ToValidUTF8(name, "\uFFFD")
	if len(name) > maxFaultName {
		name = strings.ToValidUTF8(name[:maxFaultName], "")
	}
	return &problem.Field{Field: name, Code: code, Message: message}
}

// parse decodes one parameter and checks it on its own.
func (p Parameters) parse(rawName, rawValue string) (name, value string, fault *problem.Field) {
	name, err := unescape(rawName)
	if err != nil {
		// The part before the first semicolon is the parameter that the client means.
		name, _, _ = strings.Cut(rawName, ";")
		return name, "", parameterFault(name, "invalid_format", malformedParameter)
	}
	if !slices.Contains(p.names, name) {
		return name, "", parameterFault(name, "unknown_parameter", p.known())
	}
	value, err = unescape(rawValue)
	switch {
	case err != nil:
		return name, "", parameterFault(name, "invalid_format", malformedParameter)
	case strings.TrimSpace(value) == "":
		return name, "", parameterFault(name, "required", "Empty query parameter: give it a value or leave it out.")
	case utf8.RuneCountInString(value) > maxParameter:
		return name, "", parameterFault(name, "too_long", fmt.Sprintf("Too long: use at most %d characters.", maxParameter))
	case !utf8.ValidString(value):
		return name, "", parameterFault(name, "invalid_format", "Invalid UTF-8.")
	case strings.ContainsRune(value, 0):
		return name, "", parameterFault(name, textfield.NULCode, textfield.NUL(name).Message)
	case strings.ContainsFunc(value, unicode.IsControl):
		return name, "", parameterFault(name, "invalid_format", "Control characters are not allowed.")
	}
	return name, value, nil
}

const malformedParameter = "Malformed query parameter: write % as %25 and ; as %3B."

func (p Parameters) known() string {
	if len(p.names) == 0 {
		return "Unknown query parameter: this path takes none."
	}
	return "Unknown query parameter: use " + strings.Join(p.names, ", ") + "."
}

// unescape decodes a part of a query. A semicolon separated parameters once, and still does
// for some programs, so it must be escaped.
func unescape(raw string) (string, error) {
	if strings.Contains(raw, ";") {
		return "", url.EscapeError(";")
	}
	return url.QueryUnescape(raw)
}
