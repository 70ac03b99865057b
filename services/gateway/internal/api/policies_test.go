package api

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/services/gateway/internal/docs"
)

// TestRateLimitTable: every row of the table is complete, and the README and the API document
// have it.
func TestRateLimitTable(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i, p := range (RateLimits{}).policies() {
		names = append(names, p.Name)
		field := reflect.TypeFor[RateLimits]().Field(i)
		variable := field.Tag.Get("envconfig")
		if len(p.routes) == 0 || len(p.key) == 0 || variable == "" || field.Tag.Get("default") == "" || field.Tag.Get("desc") == "" {
			t.Errorf("the row of %s is not complete: %s", field.Name, field.Tag)
		}
		for _, part := range p.key {
			if !slices.Contains([]string{network, account, session, user}, part) {
				t.Errorf("%s counts by %q, which no subject has", p.Name, part)
			}
		}
		row := fmt.Sprintf("| `%s` |", p.Name)
		_, rest, ok := strings.Cut(string(readme), "\n"+row)
		rest, _, _ = strings.Cut(rest, "\n")
		if !ok || !strings.HasSuffix(rest, fmt.Sprintf("| `%s` |", variable)) {
			t.Errorf("the README has no row %s … | `%s` |", row, variable)
		}
	}
	want := []string{"login", "login-ip", "refresh", "refresh-ip", "signup", "mail", "links", "mfa", "passkeys", "proof", "change-email", "export", "export-link", "realtime", "avatar", "general", "general-ip"}
	if !slices.Equal(names, want) {
		t.Errorf("policies = %v, want %v: clients and operators know their names", names, want)
	}
	var listed []string
	components := document(t)["components"].(map[string]any)["schemas"].(map[string]any)
	for _, name := range components["RateLimitPolicy"].(map[string]any)["enum"].([]any) {
		listed = append(listed, name.(string))
	}
	if !slices.Equal(listed, want) {
		t.Errorf("RateLimitPolicy of the API document lists %v, want %v", listed, want)
	}
	policies := (RateLimits{}).policies()
	var documented []string
	for _, route := range documentedRoutes(t) {
		documented = append(documented, route.name)
	}
	for name := range limitedRoutes(policies) {
		if !slices.Contains(documented, name) {
			t.Errorf("a policy is for %s, which is not in the API document", name)
		}
	}
	if everyRequest(policies, network).Name != "general-ip" || everyRequest(policies, user).Name != "general" {
		t.Error("a request is not counted by network and by user")
	}
}

// SEC-104: every request that has a password hashed counts against a limit: of a signed-in
// user, the policy proof. A mailed link that comes with a new password alone is used once.
func TestSEC104HashedPasswordsAreCounted(t *testing.T) {
	t.Parallel()
	routes, found := limitedRoutes((RateLimits{}).policies()), 0
	for _, route := range documentedRoutes(t) {
		if !slices.ContainsFunc(route.members, isPassword) {
			continue
		}
		found++
		want := "proof"
		switch {
		case route.name == "POST /api/v1/auth/login":
			want = "login"
		case route.name == "POST /api/v1/auth/signup":
			want = "signup"
		case slices.Contains(route.members, "newPassword") && !slices.Contains(route.members, "currentPassword"):
			want = "links"
		}
		if !slices.ContainsFunc(routes[route.name].policies, func(p policy) bool { return p.Name == want }) {
			t.Errorf("%s with %v does not count against the policy %s", route.name, route.members, want)
		}
	}
	if found < 14 {
		t.Errorf("found %d routes with a password, want 14 or more", found)
	}
}

// SEC-111: every request by which a stranger can make a service write has a limit of its own,
// far below the general one.
func TestSEC111RequestsOfStrangersAreLimited(t *testing.T) {
	t.Parallel()
	routes, found := limitedRoutes((RateLimits{}).policies()), 0
	for _, route := range documentedRoutes(t) {
		if !route.anyone || !strings.HasPrefix(route.name, "POST ") {
			continue
		}
		found++
		if !slices.ContainsFunc(routes[route.name].policies, func(p policy) bool { return slices.Equal(p.key, []string{network}) }) {
			t.Errorf("%s has no limit per network", route.name)
		}
	}
	if found < 10 {
		t.Errorf("found %d routes that need no token, want 10 or more", found)
	}
}

func isPassword(member string) bool { return strings.Contains(strings.ToLower(member), "password") }

// documentedRoute is a route of the API document.
type documentedRoute struct {
	name    string // method and pattern
	anyone  bool   // Callers need not be signed in.
	members []string
}

// document returns the API document.
func document(t *testing.T) map[string]any {
	t.Helper()
	d, err := docs.New("Headgate")
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", docs.DocumentPath, nil))
	var found map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &found); err != nil {
		t.Fatal(err)
	}
	return found
}

func documentedRoutes(t *testing.T) []documentedRoute {
	t.Helper()
	document := document(t)
	var all []documentedRoute
	for pattern, item := range document["paths"].(map[string]any) {
		for method, operation := range item.(map[string]any) {
			operation, ok := operation.(map[string]any)
			if !ok {
				continue // parameters of all methods
			}
			security, own := operation["security"].([]any)
			none := func(requirement any) bool { return len(requirement.(map[string]any)) == 0 }
			route := documentedRoute{
				name:   strings.ToUpper(method) + " " + pattern,
				anyone: own && (len(security) == 0 || slices.ContainsFunc(security, none)),
			}
			properties(document, operation["requestBody"], func(name string) { route.members = append(route.members, name) })
			all = append(all, route)
		}
	}
	return all
}

// properties calls found with the name of every property in a part of document.
func properties(document map[string]any, part any, found func(name string)) {
	switch part := part.(type) {
	case []any:
		for _, item := range part {
			properties(document, item, found)
		}
	case map[string]any:
		if ref, ok := part["$ref"].(string); ok {
			var target any = document
			for name := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
				target = target.(map[string]any)[name]
			}
			properties(document, target, found)
		}
		for name, value := range part {
			if members, ok := value.(map[string]any); ok && name == "properties" {
				for member := range members {
					found(member)
				}
			}
			properties(document, value, found)
		}
	}
}

// SEC-101: the gateway counts the spellings of an address as auth-service does, which stores
// one account for them.
func TestSEC101SpellingsOfAnAddress(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"ann@bücher.example", " ANN@BÜCHER.example ", "ann@xn--bcher-kva.example", "Ann@xn--bcher-KVA.Example", "ann@bücher。example"} {
		if got := accountKey(text); got != "ann@xn--bcher-kva.example" {
			t.Errorf("accountKey(%q) = %q", text, got)
		}
	}
	// The Kelvin sign is not the letter K in an address.
	if accountKey("\u212aann@example.com") == accountKey("kann@example.com") {
		t.Error("the Kelvin sign is folded")
	}
}
