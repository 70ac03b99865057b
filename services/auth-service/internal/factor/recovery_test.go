package factor_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/headgate/headgate/services/auth-service/internal/factor"
)

func TestSEC69NewRecoveryCodes(t *testing.T) {
	t.Parallel()
	format := regexp.MustCompile(`^[a-z2-7]{6}(-[a-z2-7]{6}){3}$`) // 24 base32 characters are 120 bits.
	seen := map[string]bool{}
	for range 2 {
		codes := factor.NewRecoveryCodes()
		if len(codes) != 10 {
			t.Errorf("%d codes, want 10", len(codes))
		}
		for _, code := range codes {
			if seen[code] || !format.MatchString(code) {
				t.Errorf("code %q is repeated or malformed", code)
			}
			seen[code] = true
		}
	}
}

func TestSEC35HashRecoveryCode(t *testing.T) {
	t.Parallel()
	const code = "abcdef-ghijkl-mnopqr-234567"
	want := factor.HashRecoveryCode(code)
	for name, tc := range map[string]struct {
		typed string
		same  bool
	}{
		"as shown":             {code, true},
		"upper case":           {strings.ToUpper(code), true},
		"no hyphens":           {strings.ReplaceAll(code, "-", ""), true},
		"spaces for hyphens":   {strings.ReplaceAll(code, "-", " "), true},
		"spaces around it":     {"  " + code + " ", true},
		"hyphens elsewhere":    {"ab-cdefghijkl-mnopqr23-4567", true},
		"a character missing":  {code[:len(code)-1], false},
		"another character":    {"b" + code[1:], false},
		"a tab within it":      {strings.ReplaceAll(code, "-", "\t"), true},
		"underscores":          {strings.ReplaceAll(code, "-", "_"), false},
		"similar digit, 0 / o": {strings.ReplaceAll(code, "o", "0"), false},
	} {
		if got := factor.HashRecoveryCode(tc.typed) == want; got != tc.same {
			t.Errorf("%s: HashRecoveryCode(%q) is the same: %t, want %t", name, tc.typed, got, tc.same)
		}
	}
	if want == factor.HashRecoveryCode("") || strings.Contains(want, "abcdef") || len(want) != 64 {
		t.Errorf("hash = %q", want)
	}
}
