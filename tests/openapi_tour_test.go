package tests

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/testkit"
)

// The tours call the operations that no other test calls, so that each operation of
// openapi.json succeeds at least once.

// totp returns the code of a secret for a step (RFC 6238).
func totp(t *testing.T, secret string, step int64) string {
	t.Helper()
	key, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(secret)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha1.New, key)
	if err := binary.Write(mac, binary.BigEndian, step); err != nil {
		t.Fatal(err)
	}
	sum := mac.Sum(nil)
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[sum[19]&15:])&0x7fffffff%1000000)
}

func TestOpenAPITourOfFactors(t *testing.T) {
	t.Parallel()
	c, email := newClient(t), newEmail()
	c.signup(email)
	var begun struct{ FactorID, Secret string }
	c.do(http.StatusCreated, "POST /api/v1/auth/mfa/totp", nil, &begun)
	factor := "/api/v1/auth/mfa/totp/" + begun.FactorID
	var first, second struct{ RecoveryCodes []string }
	c.do(http.StatusOK, "POST "+factor+"/verify", object{"code": totp(t, begun.Secret, time.Now().Unix()/30), "password": goodPassword}, &first)
	var confirmed struct{ Proof string }
	c.do(http.StatusOK, "POST /api/v1/auth/reauthenticate", object{"password": goodPassword, "code": first.RecoveryCodes[1]}, &confirmed)
	c.do(http.StatusUnauthorized, "POST /api/v1/auth/mfa/recovery-codes", nil, nil)
	c.do(http.StatusOK, "POST /api/v1/auth/mfa/recovery-codes", object{"proof": confirmed.Proof}, &second)
	if len(second.RecoveryCodes) != 10 || first.RecoveryCodes[0] == second.RecoveryCodes[0] {
		t.Fatalf("%d recovery codes", len(second.RecoveryCodes))
	}
	var asked struct{ Status, MFAToken string }
	stranger := newClient(t)
	stranger.do(http.StatusOK, "POST /api/v1/auth/login", object{"email": email, "password": goodPassword, "deviceName": "Phone"}, &asked)
	challenge := object{"mfaToken": asked.MFAToken, "code": first.RecoveryCodes[0]}
	stranger.do(http.StatusUnauthorized, "POST /api/v1/auth/mfa/challenge", challenge, nil) // A new set replaced it.
	challenge["code"] = second.RecoveryCodes[0]
	var in signedIn
	stranger.do(http.StatusOK, "POST /api/v1/auth/mfa/challenge", challenge, &in)
	stranger.do(http.StatusGone, "POST /api/v1/auth/mfa/challenge", challenge, nil)

	c.do(http.StatusOK, "POST /api/v1/auth/reauthenticate", object{"password": goodPassword, "code": second.RecoveryCodes[1]}, nil)
	var list struct {
		Factors           []struct{ ID string }
		RecoveryCodesLeft int
	}
	c.do(http.StatusOK, "GET /api/v1/auth/mfa/factors", nil, &list)
	if len(list.Factors) != 1 || list.RecoveryCodesLeft != 8 {
		t.Errorf("factors = %+v", list)
	}
	c.do(http.StatusForbidden, "POST /api/v1/auth/reauthenticate/mail", nil, nil) // The address is not verified.
	c.do(http.StatusUnauthorized, "DELETE "+factor, object{"password": "not the password"}, nil)
	c.do(http.StatusOK, "DELETE "+factor, object{"password": goodPassword}, nil)
	c.do(http.StatusNotFound, "DELETE "+factor, object{"password": goodPassword}, nil)
}

func TestOpenAPITourOfTheAccount(t *testing.T) {
	t.Parallel()
	c, other, email, next := newClient(t), newClient(t), newEmail(), newEmail()
	c.signup(email)
	other.login(email, goodPassword)
	c.do(http.StatusOK, "DELETE /api/v1/auth/sessions/"+other.tokens.SessionID, nil, nil)
	c.do(http.StatusNotFound, "DELETE /api/v1/auth/sessions/"+other.tokens.SessionID, nil, nil)

	tokenOf := func(address, page string) string {
		return mustURL(t, awaitLinkTo(t, address, "auth/"+page)).Query().Get("token")
	}
	c.do(http.StatusAccepted, "POST /api/v1/auth/resend-verification", object{"email": newEmail()}, nil)
	c.do(http.StatusAccepted, "POST /api/v1/auth/change-email", object{"newEmail": next, "currentPassword": goodPassword}, nil)
	var changed struct{ User user }
	c.do(http.StatusOK, "POST /api/v1/auth/change-email/confirm", object{"token": tokenOf(next, "change-email/confirm")}, &changed)
	if changed.User.Email != next {
		t.Errorf("confirmed = %+v", changed)
	}
	c.do(http.StatusOK, "POST /api/v1/auth/change-password", object{"currentPassword": goodPassword, "newPassword": otherPassword}, &struct{ Tokens *tokens }{&c.tokens})
	c.do(http.StatusAccepted, "POST /api/v1/auth/reauthenticate/mail", nil, nil)
	c.do(http.StatusUnauthorized, "POST /api/v1/auth/reauthenticate", object{"mailCode": "00000000"}, nil)
	c.do(http.StatusBadRequest, "POST /api/v1/auth/change-password", object{"currentPassword": otherPassword, "newPassword": "qwertyuiop"}, nil)
	c.do(http.StatusOK, "POST /api/v1/auth/change-email/revert", object{"token": tokenOf(email, "change-email/revert")}, &changed)
	if changed.User.Email != email {
		t.Errorf("reverted = %+v", changed)
	}
	c.do(http.StatusOK, "POST /api/v1/auth/reset-password", object{"token": tokenOf(email, "reset-password"), "newPassword": goodPassword}, nil)
	c.login(email, goodPassword)
	c.do(http.StatusOK, "POST /api/v1/auth/logout-all", nil, nil)
}

// A person whose address another person has signed up with takes the account over, or
// rejects it.
func TestOpenAPITourOfForeignSignUps(t *testing.T) {
	t.Parallel()
	for _, choice := range []string{"take-over", "reject"} {
		stranger, victim, email := newClient(t), newClient(t), newEmail()
		stranger.signup(email)
		link := object{"token": mustURL(t, awaitLink(t, email)).Query().Get("token")}
		victim.do(http.StatusForbidden, "POST /api/v1/auth/verify-email", link, nil)
		if choice == "take-over" {
			link["newPassword"] = otherPassword
		}
		victim.do(http.StatusOK, "POST /api/v1/auth/verify-email/"+choice, link, nil)
		stranger.do(http.StatusUnauthorized, "POST /api/v1/auth/refresh", object{"refreshToken": stranger.tokens.RefreshToken}, nil)
		if choice == "take-over" {
			victim.login(email, otherPassword)
		} else {
			victim.signup(email)
		}
	}
}

func TestOpenAPITourOfTheProfile(t *testing.T) {
	t.Parallel()
	c, admin, email := newClient(t), newAdmin(t), newEmail()
	me := c.signup(email)
	a := c.do(http.StatusOK, "PATCH /api/v1/user/me", object{"bio": nil, "locale": "de-CH", "preferences": object{"any": object{"thing": []int{1}}}}, nil)
	c.do(http.StatusPreconditionFailed, "PATCH /api/v1/user/me", object{"bio": "Late."}, nil, "If-Match", `"0"`)
	c.do(http.StatusBadRequest, "PATCH /api/v1/user/me", object{"timezone": "Mars/Olympus", "name": ""}, nil)
	for _, path := range []string{"/api/v1/user/me", "/api/v1/user/" + me.ID} {
		c.wantNotModified(path, a.header.Get("ETag"))
	}
	admin.do(http.StatusOK, "GET /api/v1/user/"+me.ID, nil, nil)
	admin.do(http.StatusOK, "DELETE /api/v1/user/"+me.ID+"/cache", nil, nil)
	for _, path := range []string{"/api/v1/user/", "/api/v1/user"} {
		var found []struct{ UserID string }
		admin.do(http.StatusOK, "GET "+path+"?q="+url.QueryEscape(email), nil, &found)
		if len(found) != 1 || found[0].UserID != me.ID {
			t.Errorf("GET %s = %+v", path, found)
		}
	}
}

func (c *client) wantNotModified(path, tag string) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.gateway+path, http.NoBody)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.tokens.AccessToken)
	req.Header.Set("If-None-Match", tag)
	res, err := httpClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusNotModified || res.Header.Get("ETag") != tag {
		c.t.Errorf("GET %s with %s = %s %s", path, tag, res.Status, res.Header.Get("ETag"))
	}
}

func TestOpenAPITourOfOperators(t *testing.T) {
	t.Parallel()
	admin, c, email := newAdmin(t), newClient(t), newEmail()
	me := c.signup(email)
	awaitLink(t, email)
	one := "/api/v1/auth/users/" + me.ID
	admin.do(http.StatusOK, "GET "+one, nil, nil)
	var found []user
	admin.do(http.StatusOK, "GET /api/v1/auth/users?role=user&status=active&q="+url.QueryEscape(email), nil, &found)
	if len(found) != 1 || found[0].ID != me.ID {
		t.Errorf("accounts = %+v", found)
	}
	admin.do(http.StatusBadRequest, "GET /api/v1/auth/users?role=king", nil, nil)
	admin.do(http.StatusOK, "POST "+one+"/revoke-sessions", nil, nil)
	admin.do(http.StatusOK, "POST "+one+"/reset-mfa", nil, nil)
	// Sessions of other tests began later.
	admin.do(http.StatusOK, "POST /api/v1/auth/revoke-all-sessions", object{"before": time.Now().Add(-24 * time.Hour)}, nil)
	admin.do(http.StatusOK, "PATCH "+one, object{"status": "disabled"}, nil)

	var mails []struct{ ID string }
	admin.do(http.StatusOK, "GET /api/v1/email/messages?limit=1&to="+url.QueryEscape(email), nil, &mails)
	admin.do(http.StatusOK, "GET /api/v1/email/messages/"+mails[0].ID, nil, nil)
	admin.do(http.StatusNotFound, "GET /api/v1/email/messages/"+me.ID, nil, nil)
	var log []auditEvent
	testkit.Eventually(t, func() error {
		if admin.do(http.StatusOK, "GET /api/v1/audit/events?limit=1&from=2020-01-01T00:00:00Z&type=user.signed_up&subjectId="+me.ID, nil, &log); len(log) != 1 {
			return fmt.Errorf("audit records = %+v", log)
		}
		return nil
	})
	admin.do(http.StatusOK, "GET /api/v1/audit/events/"+log[0].ID, nil, nil)
	admin.do(http.StatusAccepted, "DELETE "+one, nil, nil)

	var limits []struct{ Policy, Backend string }
	admin.do(http.StatusOK, "GET /api/v1/auth/rate-limits?ip=127.0.0.1&account="+url.QueryEscape(email), nil, &limits)
	if len(limits) == 0 {
		t.Error("the list of limits is empty")
	}
	admin.do(http.StatusBadRequest, "GET /api/v1/auth/rate-limits?ip=nowhere", nil, nil)
	admin.do(http.StatusOK, "DELETE /api/v1/auth/rate-limits?userId="+me.ID, nil, nil)
}

func TestOpenAPITourOfDeadLetters(t *testing.T) {
	t.Parallel()
	admin := newAdmin(t)
	for _, service := range []string{"user", "email", "audit"} {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			c := &client{t: t, gateway: admin.gateway, tokens: admin.tokens}
			prefix := "/api/v1/" + service + "/dead-letters"
			id, kind := addDeadLetter(t, service)
			one := prefix + "/" + id
			var listed []struct{ ID string }
			c.do(http.StatusOK, "GET "+prefix+"?status=open&type="+kind, nil, &listed)
			if len(listed) != 1 || listed[0].ID != id {
				t.Errorf("listed = %+v", listed)
			}
			c.do(http.StatusOK, "GET "+one, nil, nil)
			c.do(http.StatusOK, "POST "+prefix+"/replay", object{"type": kind, "max": 10, "dryRun": true}, nil)
			c.do(http.StatusBadRequest, "POST "+prefix+"/replay", object{"type": kind}, nil)
			c.do(http.StatusOK, "POST "+one+"/replay", nil, nil)
			c.do(http.StatusConflict, "POST "+one+"/replay", nil, nil)
			other, _ := addDeadLetter(t, service)
			c.do(http.StatusOK, "DELETE "+prefix+"/"+other, object{"reason": "made by a test"}, nil)
			c.do(http.StatusNotFound, "DELETE "+prefix+"/"+uuid.NewString(), object{"reason": "made by a test"}, nil)
		})
	}
}

// addDeadLetter adds a dead letter to a service's database. Its event has an unknown type,
// so a replay does nothing. It returns the id of the dead letter and the type.
func addDeadLetter(t *testing.T, service string) (id, kind string) {
	t.Helper()
	db, err := pgx.Connect(t.Context(), facts(t).DatabaseURLs[service])
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.WithoutCancel(t.Context()))
	id = uuid.Must(uuid.NewV7()).String()
	event := uuid.Must(uuid.NewV7()).String()
	kind = "test.n" + strings.ReplaceAll(event, "-", "") + ".v1"
	payload, err := json.Marshal(object{
		"id": event, "name": kind, "occurredAt": time.Now().UTC(), "producer": "tests", "outcome": "success",
		"actor": object{"type": "service"}, "data": object{"token": "a value that is masked"},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(t.Context(), `
		INSERT INTO dead_letters (id, message_id, event_id, type, stream, entry_id, reason, class, attempts, payload, metadata, first_failed_at, last_failed_at)
		VALUES ($1, $2::text, $2::uuid, $3, $4, '0-1', 'made by a test', 'message', '[{"at":"2026-01-31T12:00:00Z","error":"made by a test"}]', $5, '{}', now(), now())`,
		id, event, kind, service+"-events", payload)
	if err != nil {
		t.Fatal(err)
	}
	return id, kind
}

func TestOpenAPITourOfTheInstallation(t *testing.T) {
	t.Parallel()
	c := newClient(t)
	for _, path := range []string{"/livez", "/readyz", "/.well-known/jwks.json", "/.well-known/openid-configuration", "/.well-known/webauthn", "/openapi.json"} {
		var found object
		if err := getJSON(t, c.gateway+path, &found); err != nil || len(found) == 0 {
			t.Errorf("GET %s: %v", path, err)
		}
	}
	getPage(t, c.gateway+"/docs")
	for _, path := range []string{"/health", "/docs", "/.well-known/jwks.json"} {
		if res, err := httpClient.Head(c.gateway + path); err != nil || res.StatusCode != http.StatusOK {
			t.Errorf("HEAD %s: %v %v", path, res, err)
		}
	}
	c.do(http.StatusMethodNotAllowed, "PUT /docs", nil, nil)
	c.do(http.StatusNotFound, "GET /docs/nothing.js", nil, nil)
	c.do(http.StatusBadRequest, "GET /api/v1//auth", nil, nil)
	c.do(http.StatusUnauthorized, "GET /api/v1/user/me", nil, nil, "Accept", "application/problem+json")
	c.do(http.StatusUnsupportedMediaType, "POST /api/v1/auth/login", object{}, nil, "Content-Type", "text/plain")
}
