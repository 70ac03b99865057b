package web_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/token"
)

// TestMediaTypes: what means JSON in UTF-8 without compression is accepted; any other type,
// charset or encoding is 415, and the response says which.
func TestMediaTypes(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	for _, tc := range []struct {
		method, contentType, encoding string
		status                        int
		says                          string
	}{
		{method: "POST", contentType: "application/json", status: 200},
		{method: "POST", contentType: "Application/JSON; Charset=utf8", status: 200},
		{method: "POST", contentType: `application/json; charset="UTF-8"`, status: 200},
		{method: "POST", contentType: "application/json;charset=UTF8;", status: 200},
		{method: "POST", contentType: "application/json; charset=latin1", status: 415, says: "UTF-8"},
		{method: "POST", contentType: "application/merge-patch+json", status: 415, says: "application/json"},
		{method: "POST", contentType: "application/vnd.api+json", status: 415, says: "application/json"},
		{method: "POST", contentType: "application/json", encoding: "identity", status: 200},
		{method: "POST", contentType: "application/json", encoding: "Identity, identity", status: 200},
		{method: "POST", contentType: "application/json", encoding: "identity, gzip", status: 415, says: "without compression"},
		{method: "PATCH", contentType: "application/json", status: 200},
		{method: "PATCH", contentType: "application/merge-patch+json", status: 200},
		{method: "PATCH", contentType: "application/merge-patch+json; charset=utf-8", status: 200},
		{method: "PATCH", contentType: "application/json-patch+json", status: 415, says: "application/merge-patch+json"},
		{method: "PATCH", contentType: "text/plain", status: 415, says: "application/merge-patch+json"},
	} {
		header := []string{"Content-Type", tc.contentType}
		if tc.encoding != "" {
			header = append(header, "Content-Encoding", tc.encoding)
		}
		res, a := e.do(t, tc.method, "/echo", `{}`, header...)
		if res.StatusCode != tc.status || !strings.Contains(a.Message, tc.says) {
			t.Errorf("%s %s %s = %d %q, want %d %q", tc.method, tc.contentType, tc.encoding, res.StatusCode, a.Message, tc.status, tc.says)
		}
		refused := tc.status == 415
		if got := res.Header.Get("Accept-Encoding"); (got == "identity") != (refused && tc.encoding != "") {
			t.Errorf("%s %s: Accept-Encoding = %q", tc.contentType, tc.encoding, got)
		}
		if got := res.Header.Get("Accept-Patch"); (got != "") != (refused && tc.method == "PATCH") {
			t.Errorf("%s %s: Accept-Patch = %q", tc.method, tc.contentType, got)
		}
	}
	for _, method := range []string{"OPTIONS", "PUT"} {
		if res, _ := e.do(t, method, "/echo", ""); res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Accept-Patch") != "application/merge-patch+json, application/json" {
			t.Errorf("%s = %d, Accept-Patch = %q", method, res.StatusCode, res.Header.Get("Accept-Patch"))
		}
	}
	if res, _ := e.do(t, "OPTIONS", "/me", ""); res.Header.Get("Accept-Patch") != "" {
		t.Error("Accept-Patch on a path without PATCH")
	}
}

// TestAuthorization: the scheme and white space are read as RFC 9110 says. Other schemes get
// a message that names the right one, and a challenge that does not blame a token.
func TestAuthorization(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	raw := e.issuer.Token(token.Identity{UserID: "user-1", Role: token.RoleUser})
	for authorization, want := range map[string]string{
		"Bearer " + raw: "", "bearer " + raw: "", "BEARER   " + raw + " ": "", "Bearer\t" + raw: "",
		"Basic YTpi": "Basic authentication is not supported", "basic": "Basic authentication is not supported",
		"Digest username=a": "Unsupported authentication scheme", raw: "Unsupported authentication scheme",
		"Bearer": "Malformed Authorization header", "Bearer a b": "Malformed Authorization header",
	} {
		res, a := e.do(t, "GET", "/me", "", "Authorization", authorization)
		if want == "" && res.StatusCode != http.StatusOK || want != "" && (res.StatusCode != http.StatusUnauthorized || a.Code != "unauthenticated" || !strings.Contains(a.Message, want) || res.Header.Get("WWW-Authenticate") != "Bearer") {
			t.Errorf("%.20q = %d %s %q, %q", authorization, res.StatusCode, a.Code, a.Message, res.Header.Get("WWW-Authenticate"))
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.URL+"/me", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header["Authorization"] = []string{"Bearer " + raw, "Bearer " + raw}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized {
		t.Errorf("two Authorization headers = %d, want 401", res.StatusCode)
	}
}
