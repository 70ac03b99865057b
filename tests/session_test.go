package tests

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/testkit"
)

// ownRoutes are one route of each service that every signed-in user may call.
// email-service has none, so it answers 403 until the session ends, and then 401.
var ownRoutes = map[string]string{
	"auth-service":  "/api/v1/auth/sessions",
	"user-service":  "/api/v1/user/me",
	"email-service": "/api/v1/email/messages",
	"audit-service": "/api/v1/audit/me",
}

// TestSEC13RevocationReachesEveryService is SEC-13: an ended session is rejected by the
// gateway and by each service, also after every process was killed.
func TestSEC13RevocationReachesEveryService(t *testing.T) {
	c := newClient(t)
	c.signup(newEmail())
	ended := func() error {
		for service, path := range ownRoutes {
			direct := &client{t: t, gateway: facts(t).ServiceURLs[service], tokens: c.tokens}
			for target, caller := range map[string]*client{"gateway": c, service: direct} {
				a, err := caller.try("GET", path, nil)
				if err != nil {
					return err
				}
				if a.status != http.StatusUnauthorized || a.Code != "session_revoked" {
					return fmt.Errorf("GET %s at %s = %d %s, want 401 session_revoked", path, target, a.status, a.Code)
				}
			}
		}
		return nil
	}
	for service, path := range ownRoutes {
		if a, err := c.try("GET", path, nil); err != nil || a.status == http.StatusUnauthorized {
			t.Fatalf("GET %s of %s while signed in = %d %s, %v", path, service, a.status, a.Code, err)
		}
	}
	c.do(http.StatusOK, "POST /api/v1/auth/logout", nil, nil)
	testkit.Eventually(t, ended)
	c.do(http.StatusOK, "POST /api/v1/auth/logout", nil, nil) // It is idempotent.

	for service := range ownRoutes {
		kill(t, service)
	}
	kill(t, "gateway")
	testkit.Eventually(t, ended)
}

// TestSEC17CrashAmidARotation: a client that lost the response of a rotation in a crash
// gets the same successor when it presents its token again.
func TestSEC17CrashAmidARotation(t *testing.T) {
	c := newClient(t)
	c.signup(newEmail())
	db, err := pgx.Connect(t.Context(), facts(t).DatabaseURLs["auth"])
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.WithoutCancel(t.Context()))
	body, err := json.Marshal(object{"refreshToken": c.tokens.RefreshToken})
	if err != nil {
		t.Fatal(err)
	}
	// The response is never read, so it is lost.
	lost, err := net.Dial("tcp", strings.TrimPrefix(c.gateway, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer lost.Close()
	fmt.Fprintf(lost, "POST /api/v1/auth/refresh HTTP/1.1\r\nHost: headgate\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	testkit.Eventually(t, func() error {
		var generation int
		err := db.QueryRow(t.Context(), `SELECT generation FROM sessions WHERE id = $1`, c.tokens.SessionID).Scan(&generation)
		if err == nil && generation != 2 {
			err = fmt.Errorf("generation %d, want 2", generation)
		}
		return err
	})
	kill(t, "auth-service")
	testkit.Eventually(t, func() error {
		if a, err := c.try("GET", "/api/v1/auth/sessions", nil); err != nil || a.status != http.StatusOK {
			return fmt.Errorf("auth-service is not back: %d %s, %w", a.status, a.Code, err)
		}
		return nil
	})
	again := c.do(http.StatusOK, "POST /api/v1/auth/refresh", object{"refreshToken": c.tokens.RefreshToken}, nil)
	if outcome := again.header.Get("X-Refresh-Outcome"); outcome != "replayed" {
		t.Errorf("outcome after the crash = %q, want replayed", outcome)
	}
}

// TestSEC70DeletedAccountIsForgotten: every service erases the personal data of a deleted
// account.
func TestSEC70DeletedAccountIsForgotten(t *testing.T) {
	t.Parallel()
	c, admin, email := newClient(t), newAdmin(t), newEmail()
	me := c.signup(email)
	c.do(http.StatusOK, "GET /api/v1/user/me", nil, nil)
	awaitLink(t, email)
	messages := "/api/v1/email/messages?to=" + url.QueryEscape(email)
	testkit.Eventually(t, func() error {
		var sent []struct{ Status string }
		admin.do(http.StatusOK, "GET "+messages, nil, &sent)
		if len(sent) != 1 || sent[0].Status != "sent" {
			return fmt.Errorf("messages = %+v", sent)
		}
		return nil
	})
	c.do(http.StatusAccepted, "DELETE /api/v1/auth/account", object{"password": goodPassword}, nil)
	testkit.Eventually(t, func() error {
		if a, err := c.try("GET", "/api/v1/user/me", nil); err != nil || a.status != http.StatusUnauthorized {
			return fmt.Errorf("the token is still valid: %d, %w", a.status, err)
		}
		return nil
	})
	admin.do(http.StatusNotFound, "GET /api/v1/auth/users/"+me.ID, nil, nil)
	testkit.Eventually(t, func() error {
		if a, err := admin.try("GET", "/api/v1/user/"+me.ID, nil); err != nil || a.status != http.StatusNotFound {
			return fmt.Errorf("the profile still exists: %d, %w", a.status, err)
		}
		var left []struct{ ID string }
		if admin.do(http.StatusOK, "GET "+messages, nil, &left); len(left) != 0 {
			return fmt.Errorf("%d messages still have the address", len(left))
		}
		a, err := admin.try("GET", "/api/v1/audit/events?limit=200&subjectId="+me.ID, nil)
		if err != nil || strings.Contains(string(a.Data), email) {
			return fmt.Errorf("the audit log still has the address: %w", err)
		}
		log, err := admin.audit(me.ID)
		if err != nil {
			return err
		}
		types := map[string]bool{}
		for _, e := range log {
			types[e.Type] = true
			if e.Actor.ID == me.ID && e.IP != "" {
				return fmt.Errorf("%s still has an address", e.Type)
			}
		}
		if !types["user.deleted"] || !types["user.signed_up"] || !types["session.revoked"] {
			return fmt.Errorf("audit records = %v", types)
		}
		return nil
	})
}

// TestSEC108DeletedAccountIsInNoDatabase: after the deletion of an account, no table of any
// service has its address or name: neither outboxes nor dead letters either.
func TestSEC108DeletedAccountIsInNoDatabase(t *testing.T) {
	t.Parallel()
	c, admin, email := newClient(t), newAdmin(t), newEmail()
	c.signup(email)
	c.do(http.StatusOK, "PATCH /api/v1/user/me", object{"name": "Name of " + email, "bio": "Bio of " + email}, nil)
	awaitLink(t, email)
	c.do(http.StatusAccepted, "POST /api/v1/auth/change-email", object{"newEmail": "new-" + email, "currentPassword": goodPassword}, nil)
	testkit.Eventually(t, func() error {
		var sent []struct{ Status string }
		admin.do(http.StatusOK, "GET /api/v1/email/messages?to="+url.QueryEscape("new-"+email), nil, &sent)
		if len(sent) != 1 || sent[0].Status != "sent" {
			return fmt.Errorf("messages = %+v", sent)
		}
		return nil
	})
	c.do(http.StatusAccepted, "DELETE /api/v1/auth/account", object{"password": goodPassword}, nil)
	facts, err := system.read()
	if err != nil {
		t.Fatal(err)
	}
	for service, address := range facts.DatabaseURLs {
		db, err := pgx.Connect(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close(context.WithoutCancel(t.Context()))
		testkit.Eventually(t, func() error {
			found, err := tablesWith(t.Context(), db, email)
			if err != nil || len(found) > 0 {
				return fmt.Errorf("%s has the address in %v, %w", service, found, err)
			}
			return nil
		})
	}
}

// tablesWith returns the tables of a database that contain a text, in columns of text and of
// bytes.
func tablesWith(ctx context.Context, db *pgx.Conn, text string) ([]string, error) {
	const tables = `SELECT quote_ident(table_name) FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'`
	rows, err := db.Query(ctx, tables)
	if err != nil {
		return nil, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	var found []string
	for _, name := range names {
		var n int
		query := `SELECT count(*) FROM ` + name + ` AS t WHERE strpos(t::text, $1) > 0 OR strpos(t::text, $2) > 0`
		if err := db.QueryRow(ctx, query, text, hex.EncodeToString([]byte(text))).Scan(&n); err != nil {
			return nil, err
		}
		if n > 0 {
			found = append(found, name)
		}
	}
	return found, nil
}
