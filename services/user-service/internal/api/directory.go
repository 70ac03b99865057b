package api

import (
	"time"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/textfield"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/user-service/internal/profile"
)

const maxQuery = 100

// readSearch reads the filters of the list of profiles.
func readSearch(query web.Query) (profile.Search, error) {
	var search profile.Search
	var invalid []problem.Field
	text, fault := textfield.Lines("q", query["q"], maxQuery)
	if fault != nil {
		invalid = append(invalid, *fault)
	}
	search.Q = text
	for _, bound := range []struct {
		name string
		at   *time.Time
	}{{"createdAfter", &search.CreatedAfter}, {"createdBefore", &search.CreatedBefore}} {
		text := query[bound.name]
		if text == "" {
			continue
		}
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			invalid = append(invalid, problem.Field{
				Field: bound.name, Code: "invalid_format",
				Message: "Invalid timestamp: use RFC 3339, for example 2026-01-31T12:00:00Z. In a URL, write + as %2B.",
			})
		}
		*bound.at = at
	}
	if len(invalid) == 0 && !search.CreatedBefore.IsZero() && search.CreatedAfter.After(search.CreatedBefore) {
		invalid = append(invalid, problem.Field{Field: "createdAfter", Code: "out_of_range", Message: "createdAfter must not be later than createdBefore."})
	}
	return search, problem.Validation(invalid...)
}
