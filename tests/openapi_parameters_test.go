package tests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// anyQuery are the documents and pages that ignore parameters: caches, probes, mail programs
// and link trackers add some to their URLs, and none of them narrows what is shown.
var anyQuery = []string{
	"/health", "/livez", "/readyz", "/openapi.json", "/docs", "/docs/{asset}",
	"/.well-known/jwks.json", "/.well-known/openid-configuration", "/.well-known/webauthn",
	"/api/v1/user/avatars/{file}",
	"/api/v1/auth/verify-email", "/api/v1/auth/reset-password", "/api/v1/auth/change-email/confirm", "/api/v1/auth/change-email/revert",
}

// TestOpenAPIParameters: each operation reads the query parameters that openapi.json says,
// and refuses every other one, so that a misspelt filter never shows everything.
func TestOpenAPIParameters(t *testing.T) {
	t.Parallel()
	all := operations(t)
	names := []string{"rol"}
	for _, op := range all {
		names = append(names, op.query...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	admin, user := newAdmin(t), newClient(t)
	id := user.signup(newEmail()).ID
	for i, op := range all {
		t.Run(op.OperationId, func(t *testing.T) {
			t.Parallel()
			c := user
			if len(op.roles) > 0 {
				c = admin
			}
			if op.method == http.MethodGet && slices.Contains(anyQuery, op.path) {
				wantIgnored(t, c.gateway+strings.NewReplacer("{asset}", "page.js", "{file}", "none-256.jpg").Replace(op.path))
				return
			}
			wantEmptyRefused(t, c, op, id, mixed(op.query, names, i))
		})
	}
}

// mixed returns, in order, the names of an operation's own parameters and of as many others as
// an answer has faults, which are twenty. Each operation gets others, from the i-th on.
func mixed(own, all []string, i int) []string {
	some := slices.Clone(own)
	for k := range all {
		if name := all[(i+k)%len(all)]; len(some) < 20 && !slices.Contains(some, name) {
			some = append(some, name)
		}
	}
	slices.Sort(some)
	return some
}

// wantEmptyRefused sends parameters without values. Each is a fault, and the code of the fault
// tells whether the operation reads the parameter.
func wantEmptyRefused(t *testing.T, c *client, op operation, id string, names []string) {
	t.Helper()
	var query, want []string
	for _, name := range names {
		query = append(query, name+"=")
		code := "unknown_parameter"
		if slices.Contains(op.query, name) {
			code = "required"
		}
		want = append(want, name+" "+code)
	}
	status, body, err := c.callWith(op, id, "?"+strings.Join(query, "&"))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Code   string
		Errors []struct{ Field, Code string }
	}
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	var faults []string
	for _, f := range got.Errors {
		faults = append(faults, fmt.Sprint(f.Field, " ", f.Code))
	}
	if status != http.StatusBadRequest || got.Code != "validation_failed" || !slices.Equal(faults, want) {
		t.Errorf("with every parameter empty = %d %s %q, want 400 validation_failed %q", status, got.Code, faults, want)
	}
}

// wantIgnored checks that unknown parameters do not change what a document or a page is. Its
// client is a plain one, because openapi.json describes none of these parameters.
func wantIgnored(t *testing.T, url string) {
	t.Helper()
	get := func(url string) string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return fmt.Sprint(res.StatusCode, " ", res.Header.Get("Content-Type"))
	}
	if got, want := get(url+"?utm_source=mail%&rol=admin"), get(url); got != want {
		t.Errorf("with unknown parameters = %s, want %s", got, want)
	}
}
