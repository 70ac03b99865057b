package web_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/headgate/headgate/pkg/web"
)

func clientIP(t *testing.T, peer, trustedText string, header http.Header) (netip.Addr, error) {
	t.Helper()
	var trusted web.Prefixes
	if err := trusted.UnmarshalText([]byte(trustedText)); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
	r.RemoteAddr, r.Header = peer, header
	return web.ClientIP(r, trusted)
}

func TestClientAddress(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ peer, forwarded, trusted, want string }{
		"no proxy":            {"192.0.2.1:5", "198.51.100.1", "", "192.0.2.1"},
		"trusted":             {"10.0.0.1:5", "198.51.100.1", "10.0.0.0/8", "198.51.100.1"},
		"spoofed left":        {"10.0.0.1:5", "1.2.3.4, 198.51.100.1", "10.0.0.0/8", "198.51.100.1"},
		"two proxies":         {"10.0.0.1:5", "198.51.100.1, 10.0.0.2", "10.0.0.0/8", "198.51.100.1"},
		"only trusted hops":   {"10.0.0.1:5", "10.0.0.3", "10.0.0.0/8", "10.0.0.3"},
		"no header":           {"10.0.0.1:5", "", "10.0.0.0/8", "10.0.0.1"},
		"IPv6 with a zone":    {"[fe80::1%eth0]:5", "", "", "fe80::1"},
		"IPv4 in IPv6":        {"[::ffff:192.0.2.1]:5", "", "", "192.0.2.1"},
		"proxies in IPv6":     {"10.0.0.1:5", "198.51.100.1", "::ffff:10.0.0.0/104", "198.51.100.1"},
		"a hundred hops":      {"10.0.0.1:5", strings.Repeat("10.0.0.2, ", 99) + "10.0.0.2", "10.0.0.0/8", "10.0.0.2"},
		"untrusted and IPv6":  {"[2001:db8::1]:5", "1.2.3.4", "10.0.0.0/8", "2001:db8::1"},
		"single trusted peer": {"192.0.2.1:5", "198.51.100.1", "192.0.2.1", "198.51.100.1"},
		"a Unix socket":       {"@", "198.51.100.1", "10.0.0.0/8", "invalid IP"},
	} {
		got, err := clientIP(t, tc.peer, tc.trusted, http.Header{"X-Forwarded-For": {tc.forwarded}})
		if err != nil || got.String() != tc.want {
			t.Errorf("%s: ClientIP = %s, %v, want %s", name, got, err, tc.want)
		}
	}
}

// TestForwardedForms: each form that proxies write is understood; an entry that is not an
// address leaves the proxy's own, with an error.
func TestForwardedForms(t *testing.T) {
	t.Parallel()
	const unusable = "10.0.0.9"
	for header, cases := range map[string]map[string]string{
		"X-Forwarded-For": {
			"203.0.113.101:51001":               "203.0.113.101",
			"203.0.113.101":                     "203.0.113.101",
			"[2001:db8::7]:443":                 "2001:db8::7",
			"[2001:db8::7]":                     "2001:db8::7",
			"2001:db8::7":                       "2001:db8::7",
			`"203.0.113.101:51001"`:             "203.0.113.101",
			`"[2001:db8::7]:443"`:               "2001:db8::7",
			"fe80::7%eth0":                      "fe80::7",
			"::ffff:203.0.113.101":              "203.0.113.101",
			"198.51.100.4, 203.0.113.101:51001": "203.0.113.101",
			"203.0.113.101, 10.0.0.8:3100":      "203.0.113.101",
			"unknown, 203.0.113.101:1":          "203.0.113.101",
			" 203.0.113.101 ,, ":                "203.0.113.101",
			"203.0.113.101\t":                   "203.0.113.101",
			"unknown":                           unusable,
			"_hidden":                           unusable,
			"203.0.113.101:99999":               unusable,
			"203.0.113.101:":                    unusable,
			"203.0.113.101, junk":               unusable,
			"203.0.113.101/32":                  unusable,
			"[203.0.113.101":                    unusable,
			"proxy.example.com":                 unusable,
			"203.0.113.101 198.51.100.4":        unusable,
		},
		"Forwarded": {
			"for=203.0.113.101":                                             "203.0.113.101",
			"For=203.0.113.101;proto=http;by=203.0.113.43":                  "203.0.113.101",
			`for="203.0.113.101:47011"`:                                     "203.0.113.101",
			`for="203.0.113.101:_gazonk"`:                                   "203.0.113.101",
			`for="[2001:db8:cafe::17]:4711"`:                                "2001:db8:cafe::17",
			`for="[2001:db8:cafe::17]"`:                                     "2001:db8:cafe::17",
			`for="[2001:db8:cafe::17]:_port";host=example.com`:              "2001:db8:cafe::17",
			"for=198.51.100.4, for=203.0.113.101":                           "203.0.113.101",
			`for=203.0.113.101;proto=https, for="10.0.0.8:80" ; proto=http`: "203.0.113.101",
			`for=", for=203.0.113.101`:                                      "203.0.113.101",
			`host="a, for=203.0.113.101`:                                    "203.0.113.101",
			`for=203.0.113.101;host="x, for=9.9.9.9;y="`:                    "203.0.113.101",
			`for=203.0.113.101;host="a,b;c"`:                                "203.0.113.101",
			`for=203.0.113.101;host="\", for=9.9.9.9"`:                      "203.0.113.101",
			`for=203.0.113.101;host="\\"`:                                   "203.0.113.101",
			`for=9.9.9.9;x=", for=203.0.113.101;host="y"`:                   "203.0.113.101",
			`for="203.0.113\.101"`:                                          "203.0.113.101",
			`host="x;for=9.9.9.9`:                                           unusable,
			`for="203.0.113.101`:                                            unusable,
			"for=unknown":                                                   unusable,
			"for=_SEVKISEK":                                                 unusable,
			"proto=https":                                                   unusable,
			"for=198.51.100.4;for=203.0.113.101":                            unusable,
			"for=":                                                          unusable,
			"203.0.113.101":                                                 unusable,
		},
	} {
		for value, want := range cases {
			got, err := clientIP(t, "10.0.0.9:5", "10.0.0.8/31", http.Header{header: {value}})
			if got.String() != want || (err != nil) != (want == unusable) {
				t.Errorf("%s: %s: ClientIP = %s, %v, want %s", header, value, got, err, want)
			}
		}
	}
}

// TestForwardedHeaders: several lines are one list, and X-Forwarded-For precedes Forwarded.
func TestForwardedHeaders(t *testing.T) {
	t.Parallel()
	for want, header := range map[string]http.Header{
		"192.0.2.1": {"X-Forwarded-For": {"192.0.2.9, 192.0.2.8", "192.0.2.1", "10.0.0.8, 10.0.0.8"}},
		"192.0.2.2": {"X-Forwarded-For": {"192.0.2.2"}, "Forwarded": {"for=192.0.2.9"}},
		"192.0.2.3": {"X-Forwarded-For": {"", " , "}, "Forwarded": {"for=192.0.2.9", "for=192.0.2.3"}},
	} {
		if got, err := clientIP(t, "10.0.0.9:5", "10.0.0.8/31", header); err != nil || got.String() != want {
			t.Errorf("ClientIP of %v = %s, %v, want %s", header, got, err, want)
		}
	}
}

// TestUnusableClientAddress: each such request is counted, and one a minute is logged.
func TestUnusableClientAddress(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	for range 3 {
		e.do(t, http.MethodGet, "/conflict", "", "X-Forwarded-For", "198.51.100.1, unknown")
	}
	e.do(t, http.MethodGet, "/conflict", "", "X-Forwarded-For", "198.51.100.1:4711")
	e.Close() // The log is complete after the answers.
	if n := strings.Count(e.logs.String(), "invalid client address from a trusted proxy"); n != 1 {
		t.Errorf("logged %d times in %s", n, e.logs)
	}
	const metric = `
# HELP headgate_http_unusable_client_addresses_total Requests from a trusted proxy whose X-Forwarded-For or Forwarded has no valid address; they count as the proxy's own.
# TYPE headgate_http_unusable_client_addresses_total counter
headgate_http_unusable_client_addresses_total 3
`
	if err := testutil.GatherAndCompare(e.metrics, strings.NewReader(metric), "headgate_http_unusable_client_addresses_total"); err != nil {
		t.Error(err)
	}
}

// FuzzClientIP: whatever a proxy and its clients write, the address is one of a known hop, and
// what a trusted proxy appends last decides.
func FuzzClientIP(f *testing.F) {
	for _, seed := range []string{"203.0.113.101:51001", "[2001:db8::7]:443", `for="[2001:db8:cafe::17]:4711";proto=http`, `for="`, "unknown", `a, "b`, ",,"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, name := range []string{"X-Forwarded-For", "Forwarded"} {
			got, err := clientIP(t, "10.0.0.9:5", "10.0.0.8/31", http.Header{name: {text}})
			if !got.IsValid() || got.Zone() != "" || got.Is4In6() {
				t.Errorf("%s: %q: ClientIP = %v", name, text, got)
			}
			if err != nil && got != netip.MustParseAddr("10.0.0.9") && got != netip.MustParseAddr("10.0.0.8") {
				t.Errorf("%s: %q: ClientIP = %v with %v", name, text, got, err)
			}
		}
		got, err := clientIP(t, "10.0.0.9:5", "10.0.0.8/31", http.Header{"Forwarded": {text + `, for="192.0.2.1:80"`}})
		if err != nil || got != netip.MustParseAddr("192.0.2.1") {
			t.Errorf("after %q, ClientIP = %v, %v", text, got, err)
		}
	})
}
