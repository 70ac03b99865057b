package api

import (
	"slices"
	"testing"

	"github.com/headgate/headgate/services/gateway/internal/docs"
)

func TestRouteNames(t *testing.T) {
	t.Parallel()
	n := newRouteNames([]docs.Route{
		{Method: "GET", Path: "/a/{id}"},
		{Method: "DELETE", Path: "/a/{id}"},
		{Method: "GET", Path: "/a/me"},
		{Method: "DELETE", Path: "/a/{id}/cache"},
		{Method: "GET", Path: "/a/items/{id}"},
		{Method: "GET", Path: "/a/"},
	})
	for path, want := range map[string]string{
		"/a/1": "/a/{id}", "/a/me": "/a/me", "/a/me/cache": "/a/{id}/cache", "/a/items/cache": "/a/items/{id}",
		"/a/items": "/a/{id}", "/a/": "/a/", "/a": "", "/": "", "/a/1/2": "", "/a/1/cache/": "", "/b": "",
	} {
		if got := n.lookup(path); got.pattern != want {
			t.Errorf("%s is %q, want %q", path, got.pattern, want)
		}
	}
	if got := n.lookup("/a/1").allowed; !slices.Equal(got, []string{"DELETE", "GET", "HEAD"}) {
		t.Errorf("methods = %v", got)
	}
}
