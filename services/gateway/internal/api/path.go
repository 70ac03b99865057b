package api

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/headgate/headgate/pkg/problem"
)

// ErrPath says that a path can be read in more than one way. The gateway rejects it
// instead of cleaning it: it must check the same path that the service sees, and a
// redirect would turn a POST into a GET.
var ErrPath = problem.New(problem.Invalid, "invalid_path", "Invalid path: remove empty, encoded or relative segments.")

// canonical reports whether the path of u can be read in one way only.
func canonical(u *url.URL) bool {
	path := u.Path
	if !strings.HasPrefix(path, "/") || u.Opaque != "" || !utf8.ValidString(path) {
		return false
	}
	if u.RawPath != "" && u.RawPath != path {
		return false // It contains an encoded character, such as a separator.
	}
	for _, c := range []byte(path) {
		if c < ' ' || c == 0x7f || c == '\\' || c == ';' || c == '%' || c == '?' || c == '#' {
			return false
		}
	}
	for segment := range strings.SplitSeq(path[1:], "/") {
		if segment == "." || segment == ".." || segment == "" && path != "/" && !strings.HasSuffix(path, "/") {
			return false
		}
	}
	return !strings.Contains(path, "//")
}
