package upstream

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// FuzzWriteRequest: a written request is read as exactly that request, or it is not written
// at all.
func FuzzWriteRequest(f *testing.F) {
	f.Add("GET", "/a", "q=1", "X-A", "b")
	f.Add("POST", "/a b", "", "Content-Length", "5")
	f.Add("GET", "/", "x", "X-A", "b\r\nX-B: c")
	f.Add("GET / HTTP/1.1\r\nHost: x\r\n\r\nGET", "/", "", "Transfer-Encoding", "chunked")
	f.Fuzz(func(t *testing.T, method, path, query, name, value string) {
		req := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query}, Host: "svc", Header: http.Header{name: {value}}}
		var out bytes.Buffer
		w := bufio.NewWriter(&out)
		if writeRequest(w, req, Edit{}) != nil {
			return
		}
		in := bufio.NewReader(&out)
		got, err := http.ReadRequest(in)
		if err != nil {
			return // A service refuses it as well.
		}
		if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
			t.Errorf("a second request follows: %q", rest)
		}
		if got.ContentLength != 0 || len(got.TransferEncoding) > 0 {
			t.Errorf("a body was made up: %+v", got)
		}
		if got.Method != method && !strings.ContainsAny(method, " ") {
			t.Errorf("%q became %q", method, got.Method)
		}
		for other, values := range got.Header {
			if !strings.EqualFold(other, name) && !slices.Contains([]string{"Content-Length"}, other) {
				t.Errorf("%q: %q was made up", other, values)
			}
		}
	})
}
