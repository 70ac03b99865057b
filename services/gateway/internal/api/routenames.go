package api

import (
	"net/http"
	"slices"
	"strings"

	"github.com/headgate/headgate/services/gateway/internal/docs"
)

// routeNames finds the route of a path in the API document: its pattern, for the access
// log and the metrics, and its methods. A route that is missing in the document is routeName
// by its prefix, so a service can be released before the gateway knows its routes.
//
// It is a tree of path segments. The router would try one pattern after the other, and
// net/http's ServeMux rejects patterns of which neither is more specific.
type routeNames struct {
	literal  map[string]*routeNames
	wildcard *routeNames // for a segment in braces
	name     routeName
}

// routeName is a route of the document and its methods.
type routeName struct {
	pattern string // empty if no route has the path
	allowed []string
}

func newRouteNames(routes []docs.Route) *routeNames {
	root := &routeNames{}
	for _, route := range routes {
		at := root.insert(route.Path)
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

func (n *routeNames) insert(pattern string) *routeNames {
	for segment := range strings.SplitSeq(pattern[1:], "/") {
		next := n.literal[segment]
		switch {
		case strings.HasPrefix(segment, "{"):
			if n.wildcard == nil {
				n.wildcard = &routeNames{}
			}
			next = n.wildcard
		case next == nil:
			if n.literal == nil {
				n.literal = map[string]*routeNames{}
			}
			next = &routeNames{}
			n.literal[segment] = next
		}
		n = next
	}
	return n
}

// lookup returns the route of a canonical path.
func (n *routeNames) lookup(path string) routeName {
	segment, rest, more := strings.Cut(path[1:], "/")
	for _, next := range [...]*routeNames{n.literal[segment], n.wildcard} {
		switch {
		case next == nil:
		case !more && next.name.pattern != "":
			return next.name
		case more:
			// The rest of the path begins with the slash.
			if found := next.lookup(path[len(path)-len(rest)-1:]); found.pattern != "" {
				return found
			}
		}
	}
	return routeName{}
}
