package factor_test

import (
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/services/auth-service/internal/factor"
)

const android = "android:apk-key-hash:pNiP5iKyQ8JwgGOaKA1zGPUPJIS-0H1xKCQcfIoGLck"

func TestSEC145Origins(t *testing.T) {
	t.Parallel()
	var got factor.Origins
	list := "https://app.example.com, " + android + ",https://app.example.com:8443,http://localhost:3000,http://shop.localhost,https://xn--bcher-kva.example,"
	if err := got.UnmarshalText([]byte(list)); err != nil || len(got) != 6 || got[1] != android {
		t.Errorf("UnmarshalText(%q) = %q, %v", list, got, err)
	}
	for _, bad := range []string{
		"app.example.com", "https://", "https://app.example.com/", "https://app.example.com/path", "https://app.example.com:443", "http://localhost:80",
		"https://App.example.com", "HTTPS://app.example.com", "https://user@app.example.com", "https://app.example.com?", "https://app.example.com#",
		"http://app.example.com", "https://192.0.2.1", "http://127.0.0.1:3000", "https://[2001:db8::1]", "https://*.example.com", "https://bücher.example",
		"ftp://app.example.com", "null", "https://app.example.com https://b.example.com", "https://app.example.com:", "http://localhost.example.com",
		"android:apk-key-hash:", android + "=", android[:len(android)-1], strings.Replace(android, "-0H", "+0H", 1), "android:apk-key-hash:A4:D8:8F:E6",
		"ios:bundle-id:com.example.app",
	} {
		if err := got.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("UnmarshalText(%q) = %q, want an error", bad, got)
		} else if !strings.Contains(err.Error(), "want") {
			t.Errorf("UnmarshalText(%q) = %v, which does not say what is wanted", bad, err)
		}
	}
}

func FuzzOrigins(f *testing.F) {
	f.Add("https://app.example.com," + android)
	f.Add("http://localhost:3000, https://a:443")
	f.Fuzz(func(t *testing.T, text string) {
		var got, again factor.Origins
		if got.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(strings.Join(got, ","))); err != nil || !slices.Equal(got, again) {
			t.Errorf("%q is %q, and that is %q, %v", text, got, again, err)
		}
		for _, origin := range got {
			u, err := url.Parse(origin)
			if err != nil || u.Path != "" || u.User != nil || strings.ContainsAny(origin, "?# ") {
				t.Errorf("%q has the origin %q", text, origin)
			}
			if web := strings.HasPrefix(origin, "http"); web && factor.WebOrigin(u) != origin {
				t.Errorf("%q has the origin %q, which browsers send as %q", text, origin, factor.WebOrigin(u))
			}
		}
	})
}

func TestSEC145WebOrigin(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://ID.Example.com/":         "https://id.example.com",
		"https://id.example.com:443/path": "https://id.example.com",
		"http://localhost:80":             "http://localhost",
		"https://id.example.com:80":       "https://id.example.com:80",
		"http://localhost:8080":           "http://localhost:8080",
		"https://192.0.2.1":               "",
		"https://[2001:db8::1]:8443":      "",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := factor.WebOrigin(u); got != want {
			t.Errorf("WebOrigin(%s) = %q, want %q", text, got, want)
		}
	}
}

func TestSEC145RelyingParty(t *testing.T) {
	t.Parallel()
	five := factor.Origins{"https://a.com", "https://b.com", "https://www.b.co.uk", "https://c.com", "https://d.com", "https://e.com"}
	for name, tc := range map[string]struct {
		id      string
		origins factor.Origins
		related []string // nil if it is invalid
	}{
		"host of its page":        {"id.example.com", factor.Origins{"https://id.example.com"}, []string{}},
		"parent domain":           {"example.com", factor.Origins{"https://id.example.com", "https://app.example.com", android}, []string{}},
		"page elsewhere":          {"id.example.com", factor.Origins{"https://id.example.com", "https://app.example.com"}, []string{"https://app.example.com"}},
		"no page under it":        {"example.com", factor.Origins{"https://other.example.org"}, []string{"https://other.example.org"}},
		"name that ends alike":    {"example.com", factor.Origins{"https://example.com", "https://badexample.com"}, []string{"https://badexample.com"}},
		"local":                   {"localhost", factor.Origins{"http://localhost:8080", "http://localhost:3000"}, []string{}},
		"host in an intranet":     {"id", factor.Origins{"https://id"}, nil},
		"five names elsewhere":    {"id.example.com", five, five},
		"six names elsewhere":     {"id.example.com", append(slices.Clone(five), "https://f.com"), nil},
		"public suffix":           {"com", factor.Origins{"https://example.com"}, nil},
		"public suffix of two":    {"co.uk", factor.Origins{"https://example.co.uk"}, nil},
		"shared domain":           {"github.io", factor.Origins{"https://acme.github.io"}, nil},
		"own name of shared ones": {"acme.github.io", factor.Origins{"https://acme.github.io"}, []string{}},
		"with a scheme":           {"https://example.com", factor.Origins{"https://example.com"}, nil},
		"with a port":             {"example.com:8443", factor.Origins{"https://example.com:8443"}, nil},
		"upper case":              {"Example.com", factor.Origins{"https://example.com"}, nil},
		"IP address":              {"192.0.2.1", factor.Origins{"https://example.com"}, nil},
		"dot at the end":          {"example.com.", factor.Origins{"https://example.com"}, nil},
		"empty":                   {"", factor.Origins{"https://example.com"}, nil},
	} {
		rp := factor.RelyingParty{ID: tc.id, Name: "Acme", Origins: tc.origins}
		err := rp.Validate()
		if (err == nil) != (tc.related != nil) {
			t.Errorf("%s: Validate() = %v", name, err)
		}
		if err == nil && !slices.Equal(rp.Related(), tc.related) {
			t.Errorf("%s: Related() = %q, want %q", name, rp.Related(), tc.related)
		}
		if _, newErr := factor.NewWebAuthn(rp); err == nil && newErr != nil {
			t.Errorf("%s: NewWebAuthn = %v, but Validate() = nil", name, newErr)
		}
	}
}

// Answers come from one of the origins, exactly.
func TestSEC145AnswersFromOrigins(t *testing.T) {
	t.Parallel()
	rp := factor.RelyingParty{ID: host, Name: "Acme", Origins: factor.Origins{origin, "https://app.example.com", android}}
	w, err := factor.NewWebAuthn(rp)
	if err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string]error{
		origin: nil, "https://app.example.com": nil, android: nil,
		"https://app.example.com.evil.test": factor.ErrRejected,
		"https://app.example.com:443":       factor.ErrRejected,
		"https://app.example.com/":          factor.ErrRejected,
		"https://APP.example.com":           factor.ErrRejected,
		"https://x@app.example.com":         factor.ErrRejected,
		"http://app.example.com":            factor.ErrRejected,
		"https://other.example.com":         factor.ErrRejected,
		android[:len(android)-1] + "l":      factor.ErrRejected,
		"android:apk-key-hash:":             factor.ErrRejected,
		"null":                              factor.ErrRejected,
		"":                                  factor.ErrRejected,
	} {
		f := newFixture(t)
		f.webauthn, f.key.Origin = w, from
		c, err := w.BeginRegistration(f.owner)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.register(c, f.key.Register(c.Options)); !errors.Is(err, want) {
			t.Errorf("FinishRegistration from %q = %v, want %v", from, err, want)
		}
		if c, err = w.BeginLogin(); err != nil {
			t.Fatal(err)
		}
		f.key.Counter++
		if _, err := f.login(c, f.key.Login(c.Options)); !errors.Is(err, want) {
			t.Errorf("FinishLogin from %q = %v, want %v", from, err, want)
		}
	}
}

// What browsers add to an answer does not matter: outputs of extensions that were not
// requested, and members that later versions of the API have.
func TestSEC145UnsolicitedMembers(t *testing.T) {
	t.Parallel()
	for name, add := range map[string]func(answer, response map[string]any){
		"no outputs":             func(a, _ map[string]any) { a["clientExtensionResults"] = map[string]any{} },
		"outputs missing":        func(a, _ map[string]any) { delete(a, "clientExtensionResults") },
		"outputs null":           func(a, _ map[string]any) { a["clientExtensionResults"] = nil },
		"credProps":              outputs(map[string]any{"credProps": map[string]any{"rk": true}}),
		"credProps null":         outputs(map[string]any{"credProps": nil}),
		"credProps of a string":  outputs(map[string]any{"credProps": "yes"}),
		"prf":                    outputs(map[string]any{"prf": map[string]any{"enabled": true}}),
		"prf with results":       outputs(map[string]any{"prf": map[string]any{"results": map[string]any{"first": "AAAA"}}}),
		"appid":                  outputs(map[string]any{"appid": false}),
		"appid true":             outputs(map[string]any{"appid": true}),
		"others":                 outputs(map[string]any{"largeBlob": map[string]any{"supported": true}, "uvm": []any{[]int{2, 4, 2}}, "x": 1, "hmacCreateSecret": true}),
		"attachment":             func(a, _ map[string]any) { a["authenticatorAttachment"] = "platform" },
		"attachment null":        func(a, _ map[string]any) { a["authenticatorAttachment"] = nil },
		"attachment of tomorrow": func(a, _ map[string]any) { a["authenticatorAttachment"] = "implant" },
		"members of tomorrow":    func(a, r map[string]any) { a["x"], r["y"] = 1, map[string]any{"z": nil} },
		"transports":             func(_, r map[string]any) { r["transports"] = []string{"internal", "hybrid", "telepathy"} },
		"no transports":          func(_, r map[string]any) { r["transports"] = nil },
		"parsed key": func(_, r map[string]any) {
			r["publicKey"], r["publicKeyAlgorithm"] = "MFkw", -7
		},
		"no parsed key": func(_, r map[string]any) { r["publicKey"], r["publicKeyAlgorithm"] = nil, -257 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			with := func(answer []byte) []byte {
				var members map[string]any
				if err := json.Unmarshal(answer, &members); err != nil {
					t.Fatal(err)
				}
				response, _ := members["response"].(map[string]any)
				add(members, response)
				changed, err := json.Marshal(members)
				if err != nil {
					t.Fatal(err)
				}
				return changed
			}
			f := newFixture(t)
			f.key.T = t
			c, err := f.webauthn.BeginRegistration(f.owner)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.register(c, with(f.key.Register(c.Options))); err != nil {
				t.Errorf("registration: %v", err)
			}
			if c, err = f.webauthn.BeginLogin(); err != nil {
				t.Fatal(err)
			}
			f.key.Counter++
			if _, err := f.login(c, with(f.key.Login(c.Options))); err != nil {
				t.Errorf("login: %v", err)
			}
		})
	}
}

func outputs(results map[string]any) func(answer, response map[string]any) {
	return func(answer, _ map[string]any) { answer["clientExtensionResults"] = results }
}
