package web_test

import (
	"encoding/base64"
	"errors"
	"testing"

	"github.com/headgate/headgate/pkg/web"
)

// TestIDsHaveOneForm: another form of a UUID would be a second name for the same thing, or
// be rejected only by Postgres.
func TestIDsHaveOneForm(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"01890000-0000-7000-8000-00000000abcd":          true,
		"00000000-0000-0000-0000-000000000000":          true,
		"01890000-0000-7000-8000-00000000ABCD":          false,
		"{01890000-0000-7000-8000-00000000abcd}":        false,
		"0189000000007000800000000000abcd":              false,
		"urn:uuid:01890000-0000-7000-8000-00000000abcd": false,
		"01890000-0000-7000-8000-00000000abcg":          false,
		"01890000-0000-7000-8000-00000000abcd\n":        false,
		"junk":                                          false,
		"":                                              false,
	} {
		if got := web.ValidID(text); got != want {
			t.Errorf("ValidID(%q) = %t, want %t", text, got, want)
		}
		if text == "" {
			continue
		}
		encoded := base64.RawURLEncoding.EncodeToString([]byte(text))
		if _, err := (web.Query{"cursor": encoded}).PageByID(); errors.Is(err, web.ErrCursor) == want {
			t.Errorf("PageByID with the cursor of %q = %v", text, err)
		}
	}
}
