package api

import (
	"net/url"
	"testing"

	"github.com/headgate/headgate/pkg/problem"
)

func FuzzParseFilter(f *testing.F) {
	f.Add("type=user.signed_up&from=2026-01-01T00:00:00Z&ip=::1")
	f.Add("outcome=%00")
	f.Fuzz(func(t *testing.T, raw string) {
		query, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		filter, err := parseFilter(query)
		if err != nil {
			if problem.From(err).Kind != problem.Invalid {
				t.Errorf("parseFilter = %v, want a validation problem", err)
			}
			return
		}
		for _, text := range []string{filter.ActorID, filter.SubjectID, filter.Type, filter.Outcome, filter.IP, filter.RequestID} {
			if !printable(text) {
				t.Errorf("parseFilter accepts %q", text)
			}
		}
	})
}
