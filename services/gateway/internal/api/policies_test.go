package api

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestRateLimitTable: every row of the table is complete, and the README has it.
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
	want := []string{"login", "login-ip", "refresh", "refresh-ip", "signup", "mail", "general", "general-ip"}
	if !slices.Equal(names, want) {
		t.Errorf("policies = %v, want %v: clients and operators know their names", names, want)
	}
	policies := (RateLimits{}).policies()
	if everyRequest(policies, network).Name != "general-ip" || everyRequest(policies, user).Name != "general" {
		t.Error("a request is not counted by network and by user")
	}
}
