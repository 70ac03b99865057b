package web_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/web"
)

// TestWhyABodyIsMalformed: the response has the kind of error and its position, and never
// quotes the body, which may contain a password.
func TestWhyABodyIsMalformed(t *testing.T) {
	t.Parallel()
	development, production := newEdgeWith(t, web.Options{Development: true}), newEdge(t)
	deep := strings.Repeat(`{"a":`, 33) + `"hunter2"` + strings.Repeat("}", 33)
	for name, tc := range map[string]struct{ body, want string }{
		"duplicate key":     {`{"email":"hunter2","email":"hunter2"}`, `duplicate field at byte 19`},
		"trailing data":     {`{"email":"hunter2"} "hunter2"`, "data after the JSON value, from byte 19"},
		"trailing junk":     {`{"email":"hunter2"}hunter2`, "data after the JSON value, from byte 19"},
		"invalid UTF-8":     {"{\"email\":\"hunter2\xff\"}", "invalid UTF-8"},
		"nesting":           {`{"more":` + deep + `}`, "nested more than 32 levels deep"},
		"byte order mark":   {"\ufeff" + `{"email":"hunter2"}`, "begins with a byte order mark"},
		"empty":             {" \n", "empty"},
		"list":              {`["hunter2"]`, "it must be a JSON object"},
		"text":              {`hunter2`, "invalid JSON at byte 0"},
		"cut off":           {`{"email":"hunter2`, "ends too early"},
		"cut off later":     {`{"email":"hunter2"`, "ends too early"},
		"bare word":         {`{"email":hunter2}`, `invalid JSON at byte 9`},
		"escape":            {`{"email":"\uhunter2"}`, "invalid JSON at byte 10"},
		"name of no string": {`{12345:"hunter2"}`, "a name is not a string at byte 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res, a := development.do(t, http.MethodPost, "/echo", tc.body)
			if res.StatusCode != http.StatusBadRequest || a.Code != "malformed_body" || !strings.Contains(a.Message, tc.want) {
				t.Errorf("= %d %+v, want %q in the message", res.StatusCode, a, tc.want)
			}
			if shown := fmt.Sprintf("%+v", a); strings.Contains(shown, "hunter2") || strings.Contains(shown, `\uhunt`) {
				t.Errorf("the answer shows the body: %s", shown)
			}
			if _, a := production.do(t, http.MethodPost, "/echo", tc.body); a.Error != "" {
				t.Errorf("SEC-57: in production the detail is %q", a.Error)
			}
		})
	}
	t.Cleanup(func() {
		development.Close() // The lines are written after the answers.
		if strings.Contains(development.logs.String(), "hunter2") {
			t.Errorf("the log shows a body: %s", development.logs)
		}
	})
}
