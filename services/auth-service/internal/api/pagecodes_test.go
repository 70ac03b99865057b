package api

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

type documentedResponse struct {
	Ref         string `yaml:"$ref"`
	Description string
	Content     map[string]any
}

type contract struct {
	Paths map[string]struct {
		Post struct{ Responses map[string]documentedResponse }
	}
	Components struct {
		Responses map[string]documentedResponse
		Schemas   struct {
			ErrorCode struct{ Enum []string } `yaml:"ErrorCode"`
		}
	}
}

// failures returns the documented errors of POST path that can be a page.
func (c contract) failures(t *testing.T, path string) (all []*problem.Problem) {
	t.Helper()
	for status, res := range c.Paths[path].Post.Responses {
		if name, ok := strings.CutPrefix(res.Ref, "#/components/responses/"); ok {
			res = c.Components.Responses[name]
		}
		code, err := strconv.Atoi(status)
		if err != nil {
			t.Fatal(err)
		}
		if _, isPage := res.Content["text/html"]; !isPage || code < 400 {
			continue
		}
		kind := problem.Internal
		for k := problem.Internal; k <= problem.Timeout; k++ {
			if web.Status(k) == code {
				kind = k
			}
		}
		for _, quoted := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(res.Description, -1) {
			if slices.Contains(c.Components.Schemas.ErrorCode.Enum, quoted[1]) {
				all = append(all, problem.New(kind, quoted[1], "The message of the problem."))
			}
		}
	}
	return all
}

// Every documented error of the routes behind the pages has a page that says what to do next.
func TestPagesKnowEveryDocumentedError(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile("../../../gateway/internal/docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var c contract
	if err := yaml.Unmarshal(file, &c); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []account.Verification{account.VerifyByProof, account.VerifyByLink} {
		a := &api{accounts: account.New(account.Config{Verification: mode})}
		for _, l := range a.landingPages() {
			for n, f := range l.forms {
				failures := c.failures(t, prefix+l.path+f.Path)
				if len(failures) < 5 {
					t.Errorf("%s%s has the errors %v, want more", l.path, f.Path, failures)
				}
				for _, p := range failures {
					if helps, text := l.nextForm(n, p); helps >= 0 && text != "" {
						continue
					}
					if shown, known := l.advice(p); !known || shown.Message == "" {
						t.Errorf("%s%s does not say what to do about %s (VERIFICATION=%s): %q", l.path, f.Path, p.Code, mode, shown.Message)
					}
				}
			}
		}
	}
}
