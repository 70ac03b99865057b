package factor_test

import (
	"strings"
	"testing"

	"github.com/headgate/headgate/services/auth-service/internal/factor"
)

// separators are what people type, or paste along, between the characters of a code.
var separators = []string{
	" ", "  ", "\t", "\n", "\r\n", "-", " - ", "\u00a0", "\u202f", "\u3000", "\u2010", "\u2011", "\u2012", "\u2013", "\u2014", "\u2212",
	"\uff0d", "\u30fc", "\u00ad", "\u200b", "\u2060", "\ufeff", "\u200e", "\u2028",
}

// A mistyped separator does not make a code wrong.
func TestSEC144CodesAsTyped(t *testing.T) {
	t.Parallel()
	const totp, recovery = "123456", "abcdefghijklmnopqr234567"
	for name, tc := range map[string]struct{ typed, want string }{
		"space within":             {"123 456", totp},
		"spaces around":            {" 123456 ", totp},
		"hyphen":                   {"123-456", totp},
		"full-width digits":        {"\uff11\uff12\uff13\uff14\uff15\uff16", totp},
		"Arabic digits":            {"\u0661\u0662\u0663 \u0664\u0665\u0666", totp},
		"Devanagari digits":        {"\u0967\u0968\u0969\u096a\u096b\u096c", totp},
		"mathematical digits":      {"\U0001d7cf\U0001d7d0\U0001d7d1\U0001d7d2\U0001d7d3\U0001d7d4", totp},
		"with its bidi marks":      {"\u202a123456\u202c", totp},
		"recovery code as shown":   {"abcdef-ghijkl-mnopqr-234567", recovery},
		"capitals and spaces":      {"ABCDEF GHIJKL MNOPQR 234567", recovery},
		"without separators":       {recovery, recovery},
		"en dashes":                {"abcdef–ghijkl–mnopqr–234567", recovery},
		"full-width letters":       {"ＡＢＣＤＥＦ－ＧＨＩＪＫＬ－ＭＮＯＰＱＲ－２３４５６７", recovery},
		"five digits":              {"12345", ""},
		"seven digits":             {"1234567", ""},
		"no digit":                 {" - ", ""},
		"empty":                    {"", ""},
		"a letter":                 {"12345a", ""},
		"a slash":                  {"123/456", ""},
		"an underscore":            {"123_456", ""},
		"a NUL":                    {"123\x00456", ""},
		"not UTF-8":                {"123\xff456", ""},
		"recovery code cut off":    {recovery[:23], ""},
		"recovery code and more":   {recovery + "a", ""},
		"no letter of a recovery":  {"abcdef-ghijkl-mnopqr-134567", ""},
		"two codes":                {"123456 123456", ""},
		"far too many separators":  {"123" + strings.Repeat(" ", 1000) + "456", ""},
		"digit of another numeral": {"12345Ⅵ", ""},
	} {
		if got, ok := factor.ParseCode(tc.typed); got != tc.want || ok != (tc.want != "") {
			t.Errorf("%s: ParseCode(%q) = %q, %t, want %q", name, tc.typed, got, ok, tc.want)
		}
	}
	for _, separator := range separators {
		if got, ok := factor.ParseTOTPCode("123" + separator + "456" + separator); !ok || got != totp {
			t.Errorf("ParseTOTPCode with %q = %q, %t", separator, got, ok)
		}
		if got, ok := factor.ParseCode(separator + "abcdef" + separator + "ghijklmnopqr234567"); !ok || got != recovery {
			t.Errorf("ParseCode with %q = %q, %t", separator, got, ok)
		}
		if got, ok := factor.ParseDigits("1234"+separator+"5678", 8); !ok || got != "12345678" {
			t.Errorf("ParseDigits with %q = %q, %t", separator, got, ok)
		}
	}
	if got, ok := factor.ParseTOTPCode("abcdef-ghijkl-mnopqr-234567"); ok {
		t.Errorf("ParseTOTPCode of a recovery code = %q", got)
	}
}

func FuzzParseCode(f *testing.F) {
	f.Add("123 456", 2)
	f.Add("ABCDEF-ghijkl-mnopqr-234567", 0)
	f.Add("\uff11\u0662\u30fc3456", 1)
	f.Fuzz(func(t *testing.T, typed string, at int) {
		code, ok := factor.ParseCode(typed)
		if !ok {
			return
		}
		if again, ok := factor.ParseCode(code); !ok || again != code {
			t.Errorf("ParseCode(%q) = %q, but ParseCode of that = %q, %t", typed, code, again, ok)
		}
		for _, r := range code {
			if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789", r) {
				t.Errorf("ParseCode(%q) = %q", typed, code)
			}
		}
		if _, isTOTP := factor.ParseTOTPCode(typed); isTOTP != (len(code) == 6) {
			t.Errorf("ParseCode(%q) = %q, a TOTP code: %t", typed, code, isTOTP)
		}
		cut := min(max(at, 0), len(code))
		for _, separator := range separators {
			if with, ok := factor.ParseCode(code[:cut] + separator + code[cut:]); !ok || with != code {
				t.Errorf("ParseCode(%q) with %q after %d = %q, %t", code, separator, cut, with, ok)
			}
		}
	})
}
