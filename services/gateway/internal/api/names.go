package api

import (
	"net/http"
	"slices"
	"strings"

	"github.com/headgate/headgate/services/gateway/internal/docs"
)

// names tells routes apart for the access log and the metrics, and which methods each
// has, by what the API's document says. A route that a service has and the document
// does not is named by its prefix: nobody has to ask the gateway before a release.
//
// It is a tree of the segments of paths. The router would try pattern after pattern,
// and net/http's takes none of which neither is the more specific.
type names struct {
	literal map[string]*names
	any     *names // for a segment in braces
	name    named
}

// named is a route of the document.
type named struct {
	pattern string // empty if the path is none
	allowed []string
}

func newNames(routes []docs.Route) *names {
	root := &names{}
	for _, route := range routes {
		at := root.grow(route.Path)
		at.name.pattern = route.Path
		at.name.allowed = append(at.name.allowed, route.Method)
		if route.Method == http.MethodGet {
			at.name.allowed = append(at.name.allowed, http.MethodHead)
		}
		slices.Sort(at.name.allowed)
		at.name.allowed = slices.Compact(at.name.allowed)
	}
	return root
}

func (n *names) grow(pattern string) *names {
	for segment := range strings.SplitSeq(pattern[1:], "/") {
		next := n.literal[segment]
		switch {
		case strings.HasPrefix(segment, "{"):
			if n.any == nil {
				n.any = &names{}
			}
			next = n.any
		case next == nil:
			if n.literal == nil {
				n.literal = map[string]*names{}
			}
			next = &names{}
			n.literal[segment] = next
		}
		n = next
	}
	return n
}

// of returns the route of a canonical path.
func (n *names) of(path string) named {
	segment, rest, more := strings.Cut(path[1:], "/")
	for _, next := range [...]*names{n.literal[segment], n.any} {
		switch {
		case next == nil:
		case !more && next.name.pattern != "":
			return next.name
		case more:
			// What is left of the path begins with the slash.
			if found := next.of(path[len(path)-len(rest)-1:]); found.pattern != "" {
				return found
			}
		}
	}
	return named{}
}
