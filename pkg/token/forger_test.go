package token_test

import (
	"crypto/ecdsa"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
)

// forger makes tokens from a valid one, which is signed with key under the id k.
type forger struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	good string
}

func newForger(t *testing.T, key *ecdsa.PrivateKey) *forger {
	t.Helper()
	f := &forger{t: t, key: key}
	f.good = f.with(nil)
	return f
}

// with signs changed claims.
func (f *forger) with(change func(*token.Claims)) string {
	f.t.Helper()
	raw, err := token.Sign(f.key, "k", claims(change))
	if err != nil {
		f.t.Fatal(err)
	}
	return raw
}

// header signs a changed header.
func (f *forger) header(change func(map[string]any)) string {
	f.t.Helper()
	tok := jwt.NewWithClaims(jwt.SigningMethodES256, claims(nil))
	tok.Header["typ"], tok.Header["kid"] = token.Type, "k"
	change(tok.Header)
	raw, err := tok.SignedString(f.key)
	if err != nil {
		f.t.Fatal(err)
	}
	return raw
}

// payload signs claims that no struct could contain.
func (f *forger) payload(text string) string {
	f.t.Helper()
	signed := segment([]byte(`{"alg":"ES256","typ":"at+jwt","kid":"k"}`)) + "." + segment([]byte(text))
	signature, err := jwt.SigningMethodES256.Sign(signed, f.key)
	if err != nil {
		f.t.Fatal(err)
	}
	return signed + "." + segment(signature)
}

func (f *forger) withExpiry(exp string) string {
	f.t.Helper()
	return f.payload(`{"iss":"` + testkit.Expected.Issuer + `","aud":"` + testkit.Expected.Audience + `","sub":"u1","sid":"s1","role":"admin","exp":` + exp + `}`)
}

// forge replaces the header and the signature of the valid token.
func (f *forger) forge(head string, sign func(string) []byte) string {
	_, rest, _ := strings.Cut(f.good, ".")
	body, _, _ := strings.Cut(rest, ".")
	text := segment([]byte(head)) + "." + body
	return text + "." + segment(sign(text))
}

// confused signs with HS256 and a secret that everybody knows, such as the public key.
func (f *forger) confused(secret []byte) string {
	return f.forge(`{"alg":"HS256","typ":"at+jwt","kid":"k"}`, f.hmac(secret))
}

func (f *forger) hmac(secret []byte) func(string) []byte {
	return func(text string) []byte {
		mac, err := jwt.SigningMethodHS256.Sign(text, secret)
		if err != nil {
			f.t.Fatal(err)
		}
		return mac
	}
}

// flipped changes the i-th character from the end of the valid token.
func (f *forger) flipped(i int) string {
	raw := []byte(f.good)
	if raw[len(raw)-i]++; raw[len(raw)-i] > 'z' {
		raw[len(raw)-i] = 'A'
	}
	return string(raw)
}

func segment(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }
