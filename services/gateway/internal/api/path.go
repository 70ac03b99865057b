package api

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/headgate/headgate/pkg/problem"
)

// ErrPath says that a path has more than one way to be read. It is refused
// instead of tidied up: what the gateway checks and what a service sees must
// be the same, and a redirect would turn a POST into a GET.
var ErrPath = problem.New(problem.Invalid, "invalid_path", "This path is not in its canonical form.")

// canonical reports whether u has one reading only.
func canonical(u *url.URL) bool {
	path := u.Path
	if !strings.HasPrefix(path, "/") || u.Opaque != "" || !utf8.ValidString(path) {
		return false
	}
	if u.RawPath != "" && u.RawPath != path {
		return false // Something is encoded that would read as a separator.
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
