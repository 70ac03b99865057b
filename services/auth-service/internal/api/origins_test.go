package api_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
	"github.com/headgate/headgate/services/auth-service/internal/factor/factortest"
)

// SEC-145: pages and applications on any configured origin can register passkeys and sign in,
// with what their browsers add to the answers.
func TestSEC145PasskeysOnSeveralOrigins(t *testing.T) {
	t.Parallel()
	const android = "android:apk-key-hash:pNiP5iKyQ8JwgGOaKA1zGPUPJIS-0H1xKCQcfIoGLck"
	s := newService(t, func(cfg *account.Config) {
		passkeys, err := factor.NewWebAuthn(factor.RelyingParty{
			ID: "localhost", Name: "Acme", Origins: factor.Origins{"http://localhost", "https://app.example.com", android},
		})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Passkeys = passkeys
	})
	ann := s.signup("ann@example.com").Data
	for from, allowed := range map[string]bool{
		"https://app.example.com": true, android: true, "http://localhost": true,
		"https://app.example.com.evil.test": false, "http://localhost:3000": false,
	} {
		key := factortest.New(t, ann.User.ID, "localhost", from)
		begun := s.want(s.call("POST", "/passkeys", ann.Tokens.AccessToken, fields{"password": goodPassword}), 201, "").Data
		registered := s.call("POST", "/passkeys/finish", ann.Tokens.AccessToken, fields{"passkeyToken": begun.PasskeyToken, "credential": withOutputs(t, key.Register(begun.Options), `{"credProps":{"rk":true},"prf":null}`)})
		begun = s.want(s.call("POST", "/passkeys/login", "", nil), 200, "").Data
		key.Counter++
		signedIn := s.finishPasskeyLogin(begun.PasskeyToken, withOutputs(t, key.Login(begun.Options), `{"appid":false}`))
		if allowed {
			s.want(registered, 201, "")
			s.want(signedIn, 200, "")
		} else {
			s.want(registered, 400, "passkey_invalid")
			s.want(signedIn, 401, "passkey_invalid")
		}
	}
}

func withOutputs(t *testing.T, answer json.RawMessage, outputs string) json.RawMessage {
	t.Helper()
	var members map[string]json.RawMessage
	if err := json.Unmarshal(answer, &members); err != nil {
		t.Fatal(err)
	}
	members["clientExtensionResults"] = json.RawMessage(outputs)
	changed, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

// SEC-145: browsers read the related origins as JSON, also if there are none.
func TestSEC145RelatedOrigins(t *testing.T) {
	t.Parallel()
	s := newService(t)
	status, header, body := s.do("GET", "/.well-known/webauthn", "", "", "")
	if status != http.StatusOK || string(body) != `{"origins":[]}` || header.Get("Content-Type") != "application/json" || header.Get("Cache-Control") != "public, max-age=300" {
		t.Errorf("related origins = %d %s %v", status, body, header)
	}
}
