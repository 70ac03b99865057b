package tests

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
)

// browser is a Chromium.
type browser struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // chromedp keeps the browser in it.
}

func startBrowser(t *testing.T) *browser {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()))
	ctx, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	ctx, stop = context.WithTimeout(ctx, time.Minute)
	t.Cleanup(stop)
	return &browser{t: t, ctx: ctx}
}

// newBrowser returns a browser with an authenticator, on a page of an origin.
func newBrowser(t *testing.T, origin string) *browser {
	t.Helper()
	b := startBrowser(t)
	// The test runs a script, which the content security policy of the page forbids.
	do(b, page.SetBypassCSP, page.SetBypassCSPParams{Enabled: true})
	drive(b, chromedp.Navigate(origin+"/api/v1/auth/verify-email?token=x"))
	do(b, webauthn.Enable, webauthn.EnableParams{})

	do(b, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
		Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal,
		HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
	}})
	return b
}

func drive[T any](b *browser, action chromedp.Action[T]) T {
	b.t.Helper()
	result, err := chromedp.Run(b.ctx, action)
	if err != nil {
		b.t.Fatal(err)
	}
	return result
}

func do[P, R any](b *browser, command cdp.Command[P, R], params P) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, command, params); err != nil {
		b.t.Fatal(err)
	}
}

// credential returns the browser's credential for the options of a ceremony.
func (b *browser) credential(call string, options json.RawMessage) json.RawMessage {
	b.t.Helper()
	script := `(async () => {
		const options = ` + string(options) + `.publicKey;
		const parse = "` + call + `" === "create"
			? PublicKeyCredential.parseCreationOptionsFromJSON : PublicKeyCredential.parseRequestOptionsFromJSON;
		const credential = await navigator.credentials.` + call + `({publicKey: parse.call(PublicKeyCredential, options)});
		return JSON.stringify(credential.toJSON());
	})()`
	return json.RawMessage(drive(b, chromedp.Evaluate[string](script, chromedp.EvalAwaitPromise)))
}

type ceremony struct {
	PasskeyToken string          `json:"passkeyToken"`
	Options      json.RawMessage `json:"options"`
}

// TestPasskeys registers a passkey in a browser, signs in with it, renames it and
// deletes it.
func TestPasskeys(t *testing.T) {
	t.Parallel()
	c, email := newClient(t), newEmail()
	me := c.signup(email)
	b := newBrowser(t, c.gateway)

	var begun ceremony
	c.do(http.StatusCreated, "POST /api/v1/auth/passkeys", object{"password": goodPassword}, &begun)
	created := b.credential("create", begun.Options)
	finish := object{"passkeyToken": begun.PasskeyToken, "name": "Laptop", "credential": created}
	var passkey struct{ ID, Kind, Name string }
	c.do(http.StatusCreated, "POST /api/v1/auth/passkeys/finish", finish, &passkey)
	if passkey.Kind != "passkey" || passkey.Name != "Laptop" {
		t.Errorf("passkey = %+v", passkey)
	}
	c.do(http.StatusGone, "POST /api/v1/auth/passkeys/finish", finish, nil) // A ceremony can be used once.

	// A passkey is a proof, here for another passkey.
	var confirmed struct{ Proof string }
	c.do(http.StatusOK, "POST /api/v1/auth/reauthenticate/passkey", nil, &begun)
	reauth := object{"passkeyToken": begun.PasskeyToken, "credential": b.credential("get", begun.Options)}
	c.do(http.StatusOK, "POST /api/v1/auth/reauthenticate/passkey/finish", reauth, &confirmed)
	c.do(http.StatusCreated, "POST /api/v1/auth/passkeys", object{"proof": confirmed.Proof}, &begun)

	stranger := newClient(t)
	login := func(want int) (ceremony, json.RawMessage) {
		t.Helper()
		var begun ceremony
		stranger.do(http.StatusOK, "POST /api/v1/auth/passkeys/login", nil, &begun)
		answer := b.credential("get", begun.Options)
		var in signedIn
		out := any(&in)
		if want != http.StatusOK {
			out = nil
		}
		stranger.do(want, "POST /api/v1/auth/passkeys/login/finish", object{"passkeyToken": begun.PasskeyToken, "credential": answer, "deviceName": "Laptop"}, out)
		stranger.tokens = in.Tokens
		if want == http.StatusOK && in.User.ID != me.ID {
			t.Errorf("signed in as %+v", in.User)
		}
		return begun, answer
	}
	_, old := login(http.StatusOK)
	stranger.do(http.StatusOK, "GET /api/v1/user/me", nil, nil)
	// A credential is valid for its own ceremony only.
	stranger.do(http.StatusOK, "POST /api/v1/auth/passkeys/login", nil, &begun)
	stranger.do(http.StatusUnauthorized, "POST /api/v1/auth/passkeys/login/finish", object{"passkeyToken": begun.PasskeyToken, "credential": old}, nil)

	c.do(http.StatusOK, "PATCH /api/v1/auth/passkeys/"+passkey.ID, object{"name": "Old laptop"}, &passkey)
	if passkey.Name != "Old laptop" {
		t.Errorf("renamed = %+v", passkey)
	}
	c.do(http.StatusOK, "DELETE /api/v1/auth/passkeys/"+passkey.ID, object{"password": goodPassword}, nil)
	login(http.StatusUnauthorized)
	var left struct{ Factors []struct{ ID string } }
	if c.do(http.StatusOK, "GET /api/v1/auth/mfa/factors", nil, &left); len(left.Factors) != 0 {
		t.Errorf("factors = %+v", left)
	}
	wantAudit(t, me.ID, map[string]int{
		"user.signed_up": 1, "mfa.enrolled": 1, "mfa.removed": 1, "mfa.renamed": 1, "request.refused": 1, "user.logged_in": 1, "user.reauthenticated": 1, "email.sent": 3,
	})
}

// A page on another origin that is allowed registers a passkey and signs in with it, with the
// outputs of the extensions that it adds itself. A page of the gateway can then sign in, too.
func TestSEC145PasskeyOfAnotherOrigin(t *testing.T) {
	t.Parallel()
	c := newClient(t)
	me := c.signup(newEmail())
	b := newBrowser(t, system.appOrigin())
	var begun ceremony
	c.do(http.StatusCreated, "POST /api/v1/auth/passkeys", object{"password": goodPassword}, &begun)
	created := b.credential("create", withExtensions(t, begun.Options, `{"credProps": true, "prf": {}}`))
	if !strings.Contains(string(created), `"credProps":{"rk":true}`) {
		t.Errorf("the browser returned %s", created)
	}
	c.do(http.StatusCreated, "POST /api/v1/auth/passkeys/finish", object{"passkeyToken": begun.PasskeyToken, "credential": created}, nil)

	login := func() {
		t.Helper()
		c.do(http.StatusOK, "POST /api/v1/auth/passkeys/login", nil, &begun)
		answer := b.credential("get", begun.Options)
		var in signedIn
		c.do(http.StatusOK, "POST /api/v1/auth/passkeys/login/finish", object{"passkeyToken": begun.PasskeyToken, "credential": answer}, &in)
		if in.User.ID != me.ID {
			t.Errorf("signed in as %+v", in.User)
		}
	}
	login()
	drive(b, chromedp.Navigate(c.gateway+"/api/v1/auth/verify-email?token=x"))
	login()
}

// withExtensions returns the options of a ceremony that request extensions.
func withExtensions(t *testing.T, options json.RawMessage, extensions string) json.RawMessage {
	t.Helper()
	var all map[string]map[string]json.RawMessage
	if err := json.Unmarshal(options, &all); err != nil {
		t.Fatal(err)
	}
	all["publicKey"]["extensions"] = json.RawMessage(extensions)
	changed, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

// Somebody who has proved the address can do without a password.
func TestSEC96PasskeyInsteadOfPassword(t *testing.T) {
	t.Parallel()
	c, email := newClient(t), newEmail()
	c.signup(email)
	c.do(http.StatusAccepted, "POST /api/v1/auth/forgot-password", object{"email": email}, nil)
	link := mustURL(t, awaitLinkTo(t, email, "auth/reset-password")).Query().Get("token")
	c.do(http.StatusOK, "POST /api/v1/auth/reset-password", object{"token": link, "newPassword": goodPassword}, nil)
	c.login(email, goodPassword)
	b := newBrowser(t, c.gateway)
	var begun ceremony
	c.do(http.StatusCreated, "POST /api/v1/auth/passkeys", object{"password": goodPassword}, &begun)
	c.do(http.StatusCreated, "POST /api/v1/auth/passkeys/finish", object{"passkeyToken": begun.PasskeyToken, "credential": b.credential("create", begun.Options)}, nil)
	c.do(http.StatusOK, "DELETE /api/v1/auth/password", object{"password": goodPassword}, nil)
	stranger := newClient(t)
	stranger.do(http.StatusUnauthorized, "POST /api/v1/auth/login", object{"email": email, "password": goodPassword}, nil)
	var in signedIn
	stranger.do(http.StatusOK, "POST /api/v1/auth/passkeys/login", nil, &begun)
	stranger.do(http.StatusOK, "POST /api/v1/auth/passkeys/login/finish", object{"passkeyToken": begun.PasskeyToken, "credential": b.credential("get", begun.Options)}, &in)
}
