package tests

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"
)

// operation is one of the document's.
type operation struct {
	*v3.Operation

	method, path string
	public       bool
	roles        []string // that it takes; none if any will do
}

// operations returns what the document describes.
func operations(t *testing.T) []operation {
	t.Helper()
	c, err := servedContract()
	if err != nil {
		t.Fatal(err)
	}
	var all []operation
	for path, item := range c.model.Paths.PathItems.FromOldest() {
		if path == elsewhere {
			continue
		}
		for method, op := range item.GetOperations().FromOldest() {
			o := operation{Operation: op, method: strings.ToUpper(method), path: path, public: op.Security != nil && len(op.Security) == 0}
			for _, requirement := range op.Security {
				for _, roles := range requirement.Requirements.FromOldest() {
					o.roles = append(o.roles, roles...)
				}
			}
			all = append(all, o)
		}
	}
	return all
}

// ask calls an operation without a body, about an id, and returns status and code.
func (c *client) ask(op operation, id string) (status int, code string, err error) {
	path := strings.NewReplacer("{id}", id, "{asset}", "page.js").Replace(op.path)
	req, err := http.NewRequestWithContext(c.t.Context(), op.method, c.gateway+path, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	if c.tokens.AccessToken != "" {
		req.Header.Set("Authorization", "Bearer "+c.tokens.AccessToken)
	}
	res, err := httpClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, codeOf(body), err
}

// TestOpenAPIAccess: who may call an operation is what the document says, and there
// is something behind each.
func TestOpenAPIAccess(t *testing.T) {
	t.Parallel()
	admin, auditor := newAdmin(t), newClient(t)
	email := newEmail()
	id := auditor.signup(email).ID
	admin.do(http.StatusOK, "PATCH", "/api/v1/auth/users/"+id, object{"role": "auditor"}, nil)
	auditor.login(email, goodPassword)
	someone := newClient(t)
	someone.signup(newEmail())

	for _, op := range operations(t) {
		t.Run(op.OperationId, func(t *testing.T) {
			t.Parallel()
			anonymous := newClient(t)
			status, code, err := anonymous.ask(op, id)
			switch {
			case err != nil:
				t.Fatal(err)
			case code == "not_found" || code == "method_not_allowed":
				t.Errorf("nothing is there: %d %s", status, code)
			case !op.public && (status != http.StatusUnauthorized || code != "unauthenticated"):
				t.Errorf("by a stranger = %d %s, want 401 unauthenticated", status, code)
			case op.public && (status == http.StatusUnauthorized || status == http.StatusForbidden):
				t.Errorf("by a stranger = %d %s, and the document says that everybody may", status, code)
			}
			if op.public {
				return
			}
			if len(op.roles) == 0 {
				c := newClient(t) // The call may end the session, or be for the caller only.
				if err := c.mayAsk(op, "user", c.signup(newEmail()).ID); err != nil {
					t.Error(err)
				}
				return
			}
			for role, c := range map[string]*client{"user": someone, "auditor": auditor} {
				if err := c.mayAsk(op, role, id); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// mayAsk returns an error if a caller with a role is treated other than the document
// says.
func (c *client) mayAsk(op operation, role, about string) error {
	may := len(op.roles) == 0 || slices.Contains(op.roles, role)
	status, code, err := c.ask(op, about)
	if err != nil {
		return err
	}
	if refused := status == http.StatusForbidden && code == "forbidden"; refused == may || status == http.StatusUnauthorized && code == "unauthenticated" {
		return fmt.Errorf("by the role %s = %d %s, and the document has the roles %v", role, status, code, op.roles)
	}
	return nil
}
