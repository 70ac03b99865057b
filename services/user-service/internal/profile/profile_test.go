package profile_test

import (
	"encoding/json"
	"testing"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/user-service/internal/profile"
)

func FuzzChange(f *testing.F) {
	f.Add([]byte(`{"name":"Ann","bio":null,"locale":"de-CH","timezone":"UTC","preferences":{"a":1}}`))
	f.Add([]byte(`{"preferences":{"a":1e400}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		change, err := web.Decode[profile.Change](body)
		if err != nil {
			return
		}
		p, fields, err := change.Apply(profile.Profile{Name: "Ann", Preferences: []byte("{}")})
		if err != nil {
			if problem.From(err).Kind != problem.Invalid {
				t.Errorf("Apply = %v, want a problem of the client's", err)
			}
			return
		}
		if !json.Valid(p.Preferences) || p.Name == "" {
			t.Errorf("Apply = %+v", p)
		}
		// What was stored once changes nothing when it is sent again.
		if _, again, err := change.Apply(p); err != nil || len(again) > 0 {
			t.Errorf("Apply again = %v, %v; the first time %v", again, err, fields)
		}
	})
}
