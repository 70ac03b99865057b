package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/gateway/internal/api"
)

// TestAvatarRoutes: everybody can get a picture; only the owner sends one, and not too often.
// Nothing else of user-service is public.
func TestAvatarRoutes(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.RateLimits{Avatar: rate(2)})
	anonymous := map[string]int{
		"GET /api/v1/user/avatars/abc-256.jpg": http.StatusOK, "HEAD /api/v1/user/avatars/abc-256.jpg": http.StatusOK,
		"PUT /api/v1/user/me/avatar": http.StatusUnauthorized, "DELETE /api/v1/user/me/avatar": http.StatusUnauthorized,
		"GET /api/v1/user/me": http.StatusUnauthorized, "GET /api/v1/user/avatarsx": http.StatusUnauthorized, "GET /api/v1/user/avatar": http.StatusUnauthorized,
	}
	for route, want := range anonymous {
		method, path, _ := strings.Cut(route, " ")
		if a := g.do(method, path, ""); a.status != want {
			t.Errorf("%s without a token = %d, want %d", route, a.status, want)
		}
	}
	for path, want := range map[string]string{"/api/v1/user/avatars/../me": "invalid_path", "/api/v1/user/avatars/..%2fme": "invalid_path", "/api/v1/user/avatars//me": "invalid_path"} {
		if a := g.do("GET", path, ""); a.Code != want {
			t.Errorf("%s = %d %s, want %s", path, a.status, a.Code, want)
		}
	}
	bearer := g.bearer()
	for i, want := range []int{200, 200, 429} {
		a := g.do("PUT", "/api/v1/user/me/avatar", "image", "Authorization", bearer, "Content-Type", "image/png")
		if a.status != want || want == 429 && !strings.Contains(a.header.Get("RateLimit-Policy"), `"avatar"`) {
			t.Errorf("upload %d = %d, want %d", i, a.status, want)
		}
	}
	if a := g.do("DELETE", "/api/v1/user/me/avatar", "", "Authorization", bearer); a.status != 200 {
		t.Errorf("DELETE = %d", a.status)
	}
}
