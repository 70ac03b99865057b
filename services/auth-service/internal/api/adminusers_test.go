package api_test

import (
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/headgate/headgate/pkg/event"
)

// An id has one form. Postgres accepts others, which would not equal the id in a token,
// so that an administrator could demote themselves (SEC-50, SEC-51).
func TestSEC50OtherFormsOfAnID(t *testing.T) {
	t.Parallel()
	s := newService(t)
	root, _ := s.admin(), s.admin()
	for _, id := range []string{
		strings.ToUpper(root.userID), "urn:uuid:" + root.userID, "{" + root.userID + "}", strings.ReplaceAll(root.userID, "-", ""),
	} {
		s.want(s.call("GET", "/users/"+id, root.AccessToken, nil), 404, "account_not_found")
		s.want(s.call("PATCH", "/users/"+id, root.AccessToken, fields{"role": "user"}), 404, "account_not_found")
		s.want(s.call("DELETE", "/users/"+id, root.AccessToken, nil), 404, "account_not_found")
		s.want(s.call("POST", "/users/"+id+"/revoke-sessions", root.AccessToken, nil), 404, "account_not_found")
		s.want(s.call("POST", "/users/"+id+"/reset-mfa", root.AccessToken, nil), 404, "account_not_found")
	}
	for _, id := range []string{strings.ToUpper(root.SessionID), "urn:uuid:" + root.SessionID} {
		s.want(s.call("DELETE", "/sessions/"+id, root.AccessToken, nil), 404, "session_not_found")
	}
	s.want(s.call("GET", "/users", root.AccessToken, nil), 200, "")
}

func TestAdministratorResetsFactors(t *testing.T) {
	t.Parallel()
	s := newService(t)
	root := s.admin()
	ann := s.signup("ann@example.com").Data
	s.enrol(ann.Tokens.AccessToken)
	s.want(s.call("POST", "/users/"+ann.User.ID+"/reset-mfa", root.AccessToken, nil), 200, "")
	s.want(s.call("GET", "/sessions", ann.Tokens.AccessToken, nil), 401, "session_revoked")
	if in := s.login("ann@example.com").Data; in.Tokens.AccessToken == "" || in.User.MFAEnabled {
		t.Errorf("login = %+v", in)
	}
	s.want(s.call("POST", "/users/nobody/reset-mfa", root.AccessToken, nil), 404, "account_not_found")
}

// SEC-14: a change of role or status affects live sessions at once.
func TestSEC14RoleOrStatusChange(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change fields
		event  event.Payload
		login  int
	}{
		"role":     {fields{"role": "auditor"}, event.UserRoleChanged{Before: "user", After: "auditor", Email: "ann@example.com", Name: "Ann"}, 200},
		"disabled": {fields{"status": "disabled"}, event.UserDisabled{Before: "active", After: "disabled", Email: "ann@example.com", Name: "Ann"}, 403},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			root := s.admin()
			ann := s.signup("ann@example.com").Data
			other := s.login("ann@example.com").Data.Tokens
			changed := s.want(s.call("PATCH", "/users/"+ann.User.ID, root.AccessToken, tc.change), 200, "")
			if changed.Account.ID != ann.User.ID {
				t.Errorf("changed = %+v", changed.Account)
			}
			for _, old := range []tokens{ann.Tokens, other} {
				s.want(s.call("GET", "/sessions", old.AccessToken, nil), 401, "session_revoked")
				s.want(s.refresh(old.RefreshToken), 401, "session_revoked")
			}
			if got := s.call("POST", "/login", "", fields{"email": "ann@example.com", "password": goodPassword}); got.status != tc.login {
				t.Errorf("login = %d %s, want %d", got.status, got.Code, tc.login)
			}
			var recorded []event.Event
			for _, e := range s.events(event.Audit) {
				if e.Name == tc.event.EventName() {
					recorded = append(recorded, e)
				}
			}
			if len(recorded) != 1 || recorded[0].Actor.ID != root.userID || recorded[0].Actor.Type != "admin" || recorded[0].Subject != ann.User.ID {
				t.Fatalf("events = %+v", recorded)
			}
			want := event.New(t.Context(), recorded[0].OccurredAt, "", tc.event)
			if string(recorded[0].Data) != string(want.Data) {
				t.Errorf("event says %s, want %s", recorded[0].Data, want.Data)
			}
			// Repeating it changes nothing.
			before := len(s.events(event.Audit))
			s.want(s.call("PATCH", "/users/"+ann.User.ID, root.AccessToken, tc.change), 200, "")
			if got := len(s.events(event.Audit)); got != before {
				t.Errorf("no change made %d events", got-before)
			}
		})
	}
}

func TestDisableAndEnable(t *testing.T) {
	t.Parallel()
	s := newService(t)
	root := s.admin()
	ann := s.signup("ann@example.com").Data.User
	for _, status := range []string{"disabled", "active"} {
		s.want(s.call("PATCH", "/users/"+ann.ID, root.AccessToken, fields{"status": status}), 200, "")
	}
	s.login("ann@example.com")
}

func TestUpdateUserIsValidated(t *testing.T) {
	t.Parallel()
	s := newService(t)
	root := s.admin()
	for _, tc := range []struct {
		id     string
		change fields
		status int
		code   string
	}{
		{root.userID, fields{}, 400, "validation_failed"},
		{root.userID, fields{"role": "god"}, 400, "validation_failed"},
		{root.userID, fields{"status": "asleep"}, 400, "validation_failed"},
		{root.userID, fields{"name": "Ann"}, 400, "validation_failed"},
		{"nobody", fields{"role": "admin"}, 404, "account_not_found"},
		{"01a20df5-05e1-74fb-95d3-b3d9a7a61a6d", fields{"role": "admin"}, 404, "account_not_found"},
		{root.userID, fields{"role": "user"}, 403, "self_demotion"},
		{root.userID, fields{"status": "disabled"}, 403, "self_demotion"},
	} {
		if got := s.call("PATCH", "/users/"+tc.id, root.AccessToken, tc.change); got.status != tc.status || got.Code != tc.code {
			t.Errorf("PATCH %s %v = %d %s, want %d %s", tc.id, tc.change, got.status, got.Code, tc.status, tc.code)
		}
	}
	s.want(s.call("DELETE", "/users/"+root.userID, root.AccessToken, nil), 403, "self_demotion")
	s.want(s.call("DELETE", "/users/nobody", root.AccessToken, nil), 404, "account_not_found")
	s.want(s.call("DELETE", "/account", root.AccessToken, fields{"password": goodPassword}), 409, "last_admin")
	s.want(s.call("GET", "/sessions", root.AccessToken, nil), 200, "")
}

// If two administrators demote each other at the same time, one remains.
func TestSEC51LastAdminOfTwoStays(t *testing.T) {
	t.Parallel()
	for range 5 {
		s := newService(t)
		pair := []administrator{s.admin(), s.admin()}
		codes := make([]string, 2)
		var wg sync.WaitGroup
		for i := range pair {
			wg.Go(func() {
				codes[i] = s.call("PATCH", "/users/"+pair[1-i].userID, pair[i].AccessToken, fields{"role": "user"}).Code
			})
		}
		wg.Wait()
		slices.Sort(codes)
		// The second request is refused: its target is the last administrator, or its caller
		// no longer is one.
		if codes[0] != "" || codes[1] != "last_admin" && codes[1] != "session_revoked" {
			t.Errorf("codes = %q", codes)
		}
	}
}

func TestUsers(t *testing.T) {
	t.Parallel()
	s := newService(t)
	root := s.admin()
	var ids []string
	for _, email := range []string{"a@example.com", "b%b@example.com", "c@example.org"} {
		ids = append(ids, s.signup(email).Data.User.ID)
	}
	s.want(s.call("PATCH", "/users/"+ids[0], root.AccessToken, fields{"role": "auditor"}), 200, "")
	s.want(s.call("PATCH", "/users/"+ids[1], root.AccessToken, fields{"status": "disabled"}), 200, "")
	s.want(s.call("PATCH", "/users/"+ids[0], root.AccessToken, fields{"role": nil, "status": "disabled"}), 400, "validation_failed")
	for query, want := range map[string][]string{
		"":                         {ids[2], ids[1], ids[0], root.userID},
		"?q=EXAMPLE.ORG":           {ids[2]},
		"?q=%25":                   {ids[1]},
		"?q=Ann":                   {ids[2], ids[1], ids[0]},
		"?q=x_y":                   {},
		"?role=auditor":            {ids[0]},
		"?status=disabled":         {ids[1]},
		"?role=user&status=active": {ids[2]},
	} {
		if got := s.userIDs(root, query); !slices.Equal(got, want) {
			t.Errorf("GET /users%s = %v, want %v", query, got, want)
		}
	}
	var paged []string
	for query := "?limit=3"; ; {
		a := s.call("GET", "/users"+query, root.AccessToken, nil)
		for _, u := range a.Users {
			paged = append(paged, u.ID)
		}
		if a.Meta.NextCursor == "" {
			break
		}
		query = "?limit=3&cursor=" + url.QueryEscape(a.Meta.NextCursor)
	}
	if want := []string{ids[2], ids[1], ids[0], root.userID}; !slices.Equal(paged, want) {
		t.Errorf("page by page = %v, want %v", paged, want)
	}
	for _, query := range []string{"?role=god", "?status=x", "?rol=admin", "?status=disabled;role=admin", "?q=%20", "?role=", "?limit=0", "?cursor=!", "?cursor=YQ"} {
		s.want(s.call("GET", "/users"+query, root.AccessToken, nil), 400, "validation_failed")
	}
	if got := s.want(s.call("GET", "/users/"+ids[0], root.AccessToken, nil), 200, "").Account; got.Email != "a@example.com" || got.Role != "auditor" {
		t.Errorf("GET /users/{id} = %+v", got)
	}
}

func (s *service) userIDs(root administrator, query string) []string {
	s.t.Helper()
	ids := []string{}
	for _, u := range s.want(s.call("GET", "/users"+query, root.AccessToken, nil), 200, "").Users {
		ids = append(ids, u.ID)
	}
	return ids
}
