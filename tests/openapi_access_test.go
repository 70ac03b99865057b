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

// operation is an operation of openapi.json.
type operation struct {
	*v3.Operation

	method, path string
	public       bool
	roles        []string // of which the caller must have one; empty if any role may call it
	query        []string // the names of the query parameters
}

// operations returns the operations of openapi.json.
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
			for _, parameter := range slices.Concat(item.Parameters, op.Parameters) {
				if parameter.In == "query" {
					o.query = append(o.query, parameter.Name)
				}
			}
			for _, requirement := range op.Security {
				o.public = o.public || requirement.ContainsEmptyRequirement
				for _, roles := range requirement.Requirements.FromOldest() {
					o.roles = append(o.roles, roles...)
				}
			}
			all = append(all, o)
		}
	}
	return all
}

// call calls an operation without a body, with an id in its path, and returns status and
// code.
func (c *client) call(op operation, id string) (status int, code string, err error) {
	status, body, err := c.callWith(op, id, "")
	return status, codeOf(body), err
}

// callWith is call with a query, and returns the body of the response.
func (c *client) callWith(op operation, id, query string) (status int, body []byte, err error) {
	path := strings.NewReplacer("{id}", id, "{asset}", "page.js", "{file}", "none-256.jpg").Replace(op.path)
	req, err := http.NewRequestWithContext(c.t.Context(), op.method, c.gateway+path+query, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	if c.tokens.AccessToken != "" {
		req.Header.Set("Authorization", "Bearer "+c.tokens.AccessToken)
	}
	res, err := httpClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	if endless(res) {
		return res.StatusCode, nil, nil
	}
	body, err = io.ReadAll(res.Body)
	return res.StatusCode, body, err
}

// TestOpenAPIAccess: each operation of openapi.json exists, and allows the roles that the
// document says.
func TestOpenAPIAccess(t *testing.T) {
	t.Parallel()
	admin, auditor := newAdmin(t), newClient(t)
	email := newEmail()
	id := auditor.signup(email).ID
	admin.do(http.StatusOK, "PATCH /api/v1/auth/users/"+id, object{"role": "auditor"}, nil)
	auditor.login(email, goodPassword)
	someone := newClient(t)
	someone.signup(newEmail())

	for _, op := range operations(t) {
		t.Run(op.OperationId, func(t *testing.T) {
			t.Parallel()
			anonymous := newClient(t)
			status, code, err := anonymous.call(op, id)
			switch {
			case err != nil:
				t.Fatal(err)
			case code == "not_found" || code == "method_not_allowed":
				t.Errorf("the operation does not exist: %d %s", status, code)
			case !op.public && (status != http.StatusUnauthorized || code != "unauthenticated"):
				t.Errorf("without a token = %d %s, want 401 unauthenticated", status, code)
			case op.public && (status == http.StatusUnauthorized || status == http.StatusForbidden):
				t.Errorf("without a token = %d %s, but the document says that the operation is public", status, code)
			}
			if op.public {
				return
			}
			if len(op.roles) == 0 {
				c := newClient(t) // The call may end the session, or be allowed for the caller's own id only.
				if err := c.checkAccess(op, "user", c.signup(newEmail()).ID); err != nil {
					t.Error(err)
				}
				return
			}
			for role, c := range map[string]*client{"user": someone, "auditor": auditor} {
				if err := c.checkAccess(op, role, id); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// checkAccess returns an error if the access of a role differs from the document.
func (c *client) checkAccess(op operation, role, id string) error {
	may := len(op.roles) == 0 || slices.Contains(op.roles, role)
	status, code, err := c.call(op, id)
	if err != nil {
		return err
	}
	if refused := status == http.StatusForbidden && code == "forbidden"; refused == may || status == http.StatusUnauthorized && code == "unauthenticated" {
		return fmt.Errorf("as %s = %d %s, but the document has the roles %v", role, status, code, op.roles)
	}
	return nil
}
