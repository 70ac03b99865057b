package api

import (
	"testing"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
)

func FuzzParseFilter(f *testing.F) {
	f.Add("user.signed_up", "success", "::1", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00+02:00")
	f.Add("a.b", "x", "fe80::1%eth0", "2026-01-01T00:00:00Z", "2025-01-01T00:00:00Z")
	f.Fuzz(func(t *testing.T, kind, outcome, ip, from, to string) {
		filter, err := parseFilter(web.Query{"type": kind, "outcome": outcome, "ip": ip, "from": from, "to": to})
		switch {
		case err != nil && problem.From(err).Kind != problem.Invalid:
			t.Errorf("parseFilter = %v, want a validation problem", err)
		case err == nil && (filter.Type != kind || filter.Outcome != outcome || (filter.IP == "") != (ip == "")):
			t.Errorf("parseFilter(%q, %q, %q) = %+v", kind, outcome, ip, filter)
		case err == nil && from != "" && to != "" && filter.From.After(filter.To):
			t.Errorf("parseFilter accepts the range %s to %s", from, to)
		}
	})
}
