package web_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
)

// TestSEC142StrictQuery is SEC-142: a route gets the parameters that it declares, or the request is refused
// with the name of each parameter that cannot be used. None is ignored.
func TestSEC142StrictQuery(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"":                              "ok map[]",
		"&":                             "ok map[]",
		"q=a&role=admin":                "ok map[q:a role:admin]",
		"&q=a&&role=admin&":             "ok map[q:a role:admin]",
		"q=a%26b%3B%25+c%2B":            "ok map[q:a&b;% c+]",
		"q=a=b":                         "ok map[q:a=b]",
		"q=%C3%A4":                      "ok map[q:ä]",
		"%71=a":                         "ok map[q:a]",
		"q=" + strings.Repeat("ä", 256): "ok map[q:" + strings.Repeat("ä", 256) + "]",
		"rol=admin":                     "rol unknown_parameter",
		"Q=a":                           "Q unknown_parameter",
		"q[]=a":                         "q[] unknown_parameter",
		"q=a&x=1&y=2":                   "x unknown_parameter y unknown_parameter",
		"=a":                            "query unknown_parameter",
		"q=a;role=admin":                "q invalid_format",
		"q=a;":                          "q invalid_format",
		"q=a&;role=admin":               "query invalid_format",
		"q;role=admin":                  "q invalid_format",
		"q=a%":                          "q invalid_format",
		"q=%zz":                         "q invalid_format",
		"q%=a":                          "q% invalid_format",
		"q=%ff":                         "q invalid_format",
		"q=%0d%0a":                      "q required",
		"q=a%00":                        "q nul_character",
		"q=a%0d%0ab":                    "q invalid_format",
		"q=a&q=b":                       "q repeated",
		"q=a&%71=b":                     "q repeated",
		"q=a&q=":                        "q required",
		"q=%&q=b":                       "q invalid_format q repeated",
		"q":                             "q required",
		"q=":                            "q required",
		"q=+":                           "q required",
		"q=" + strings.Repeat("ä", 257): "q too_long",
		strings.Repeat("x", 300) + "=1": strings.Repeat("x", 64) + " unknown_parameter",
		"%ff=1":                         "\uFFFD unknown_parameter",
	} {
		r := &http.Request{URL: &url.URL{RawQuery: raw}}
		if got := outcomeOf(web.Takes("q", "role").Read(r)); got != want {
			t.Errorf("Read(%.60q) = %s, want %s", raw, got, want)
		}
	}
}

func outcomeOf(q web.Query, err error) string {
	if err == nil {
		return fmt.Sprint("ok ", map[string]string(q))
	}
	var faults []string
	for _, f := range problem.From(err).Fields {
		faults = append(faults, f.Field+" "+f.Code)
	}
	return strings.Join(faults, " ")
}

// TestManyParameters: the error names a bounded number of parameters.
func TestManyParameters(t *testing.T) {
	t.Parallel()
	_, err := web.Takes().Read(&http.Request{URL: &url.URL{RawQuery: strings.Repeat("x&", 10_000)}})
	if n := len(problem.From(err).Fields); n != 20 {
		t.Errorf("the error names %d parameters, want 20", n)
	}
}

// TestOpenQuery: a page shows whatever others add to its link, but takes no parameter that is
// ambiguous or broken.
func TestOpenQuery(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"token=a&utm_source=mail":                 "a",
		"utm=50%&x;y&token=a":                     "a",
		strings.Repeat("x&", 10_000) + "&token=a": "a",
		"token=a&token=b":                         "",
		"token=a&token=b&token=c":                 "",
		"token=a%":                                "",
		"utm=1":                                   "",
	} {
		q, err := web.Takes("token").OrIgnores().Read(&http.Request{URL: &url.URL{RawQuery: raw}})
		if err != nil || q["token"] != want || len(q) > 1 {
			t.Errorf("Read(%.60q) = %v, %v, want token %q", raw, q, err, want)
		}
	}
}

// TestRoutesRefuseQueries: a route that declares no parameters takes none, with any method;
// a caller without access learns nothing about the parameters.
func TestRoutesRefuseQueries(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	admin, user := e.issuer.Token(token.Identity{UserID: "a", Role: token.RoleAdmin}), e.issuer.Token(token.Identity{UserID: "u", Role: token.RoleUser})
	for request, want := range map[string]string{
		"GET /list?q=a&limit=2":       "200",
		"HEAD /list?q=a":              "200",
		"GET /list?q=a;":              "400 q invalid_format",
		"GET /admin?q=a":              "400 q unknown_parameter",
		"POST /echo?debug=1":          "400 debug unknown_parameter",
		"GET /list?q=%00 of user":     "403",
		"GET /list?bogus=1 of nobody": "401",
	} {
		var method, target, of, caller string
		_, _ = fmt.Sscan(request, &method, &target, &of, &caller)
		bearer := map[string]string{"": admin, "user": user}[caller]
		var header []string
		if caller != "nobody" {
			header = []string{"Authorization", "Bearer " + bearer}
		}
		res, got := e.do(t, method, target, "", header...)
		parts := []string{strconv.Itoa(res.StatusCode)}
		for _, f := range got.Errors {
			parts = append(parts, f.Field, f.Code)
		}
		outcome := strings.Join(parts, " ")
		if outcome != want || res.StatusCode == http.StatusBadRequest && got.Code != "validation_failed" {
			t.Errorf("%s = %s %s, want %s", request, outcome, got.Code, want)
		}
	}
}

func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"q=a&role=b", "q=a;", "q=%", "q=a&q=b", "%71=%C3%A4&&", "=&=", "q=\x00", "q=%00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := web.Takes("q", "role").Read(&http.Request{URL: &url.URL{RawQuery: raw}})
		if err != nil {
			if p := problem.From(err); p.Code != "validation_failed" || len(p.Fields) == 0 {
				t.Errorf("Read(%q) = %v, want a validation problem with a field", raw, err)
			}
			return
		}
		// What is accepted means the same to everybody.
		usual, err := url.ParseQuery(raw)
		if err != nil || len(usual) != len(q) {
			t.Fatalf("Read(%q) = %v, but url.ParseQuery = %v, %v", raw, q, usual, err)
		}
		for name, values := range usual {
			if len(values) != 1 || values[0] != q[name] || strings.TrimSpace(q[name]) == "" {
				t.Errorf("Read(%q) = %v, but url.ParseQuery = %v", raw, q, usual)
			}
		}
	})
}
