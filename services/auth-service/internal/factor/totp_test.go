package factor_test

import (
	"encoding/base32"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/services/auth-service/internal/factor"
)

// rfcSecret is the SHA-1 secret of the test vectors in RFC 6238, appendix B.
var rfcSecret = base32.StdEncoding.EncodeToString([]byte("12345678901234567890"))

// The vectors have eight digits; apps show the last six of them.
func TestSEC35CheckTOTPVectors(t *testing.T) {
	t.Parallel()
	for unix, code := range map[int64]string{
		59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130",
	} {
		step, ok, err := factor.CheckTOTP(rfcSecret, code, 0, time.Unix(unix, 0))
		if err != nil || !ok || step != unix/30 {
			t.Errorf("CheckTOTP(%s) at %d = %d, %t, %v, want step %d", code, unix, step, ok, err, unix/30)
		}
	}
}

func TestSEC35CheckTOTP(t *testing.T) {
	t.Parallel()
	const code, step = "081804", 1111111109 / 30 // RFC 6238, appendix B
	at := func(offset time.Duration) time.Time { return time.Unix(step*30, 0).Add(offset) }
	for name, tc := range map[string]struct {
		code     string
		lastStep int64
		now      time.Time
		want     bool
	}{
		"start of its step":            {code, 0, at(0), true},
		"end of its step":              {code, 0, at(29 * time.Second), true},
		"one step late":                {code, 0, at(59 * time.Second), true},
		"one step early":               {code, 0, at(-30 * time.Second), true},
		"two steps late":               {code, 0, at(60 * time.Second), false},
		"two steps early":              {code, 0, at(-31 * time.Second), false},
		"used before":                  {code, step, at(0), false},
		"used before, one step late":   {code, step, at(30 * time.Second), false},
		"a later step was used":        {code, step + 1, at(30 * time.Second), false},
		"the previous step was used":   {code, step - 1, at(0), true},
		"another code":                 {"081805", 0, at(0), false},
		"too short":                    {"81804", 0, at(0), false},
		"the eight digits of the code": {"07081804", 0, at(0), false},
		"empty":                        {"", 0, at(0), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, ok, err := factor.CheckTOTP(rfcSecret, tc.code, tc.lastStep, tc.now)
			if err != nil || ok != tc.want || ok && got != step {
				t.Errorf("CheckTOTP(%q) = %d, %t, %v, want %t", tc.code, got, ok, err, tc.want)
			}
		})
	}
	if _, ok, err := factor.CheckTOTP("not base32!", code, 0, at(0)); ok || err == nil {
		t.Errorf("CheckTOTP with a broken secret = %t, %v, want an error", ok, err)
	}
}

func TestNewTOTPKey(t *testing.T) {
	t.Parallel()
	key, err := factor.NewTOTPKey("Acme", "ann@example.com")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base32.StdEncoding.DecodeString(key.Secret)
	if err != nil || len(raw) != 20 {
		t.Errorf("secret = %q: %d bytes, %v, want 20", key.Secret, len(raw), err)
	}
	u, err := url.Parse(key.URL)
	if err != nil || u.Scheme != "otpauth" || u.Path != "/Acme:ann@example.com" || u.Query().Get("secret") != key.Secret {
		t.Errorf("URL = %q, %v", key.URL, err)
	}
	again, err := factor.NewTOTPKey("Acme", "ann@example.com")
	if err != nil || again.Secret == key.Secret {
		t.Errorf("the same secret twice: %v", err)
	}
}

// Apps read label and issuer in different ways: the label is cut at its first colon, and a
// plus sign may stand for a space.
func TestTOTPURLOfAnyName(t *testing.T) {
	t.Parallel()
	for brand, issuer := range map[string]string{
		"Acme": "Acme", "Acme Ltd": "Acme Ltd", `Acme "Ü:+"`: `Acme "Ü +"`, "A: B": "A B", "a/b?c#d%20&e=f": "a/b?c#d%20&e=f", "👩\u200d🚀 Acme": "👩\u200d🚀 Acme",
	} {
		for _, address := range []string{"ann@example.com", "a+b@example.com", "a/b?c#d%25&e='f'@example.com"} {
			key, err := factor.NewTOTPKey(brand, address)
			if err != nil {
				t.Fatal(err)
			}
			if strings.ContainsAny(key.URL, "+ \"'") || strings.Count(key.URL, ":") != 2 || strings.Count(key.URL, "/") != 3 || strings.Count(key.URL, "?") != 1 {
				t.Errorf("URL = %s: it has characters that apps misread", key.URL)
			}
			u, err := url.Parse(key.URL)
			if err != nil {
				t.Fatal(err)
			}
			q := u.Query()
			if u.Scheme != "otpauth" || u.Host != "totp" || u.Path != "/"+issuer+":"+address || q.Get("issuer") != issuer || q.Get("secret") != key.Secret || q.Get("digits") != "6" || q.Get("period") != "30" || q.Get("algorithm") != "SHA1" {
				t.Errorf("URL = %s: path %q, query %v", key.URL, u.Path, q)
			}
		}
	}
}
