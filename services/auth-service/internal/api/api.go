// Package api serves the HTTP API of auth-service and its landing pages.
package api

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

const prefix = "/api/v1/auth"

// Site is what clients need to know about this installation.
type Site struct {
	Brand   string // the name of the product
	Issuer  string // the iss claim of access tokens
	BaseURL string // the public URL of the gateway
	AppURL  string // the application that landing pages link to; no link if empty

	RelatedOrigins []string // see factor.RelyingParty
}

// Routes returns the routes of auth-service and who may call them.
func Routes(accounts *account.Accounts, keyring *signing.Keyring, site Site) []web.Route {
	a := &api{accounts: accounts, keyring: keyring, site: site}
	links := a.landingPages()
	return append(a.rateLimits(), []web.Route{
		{Method: http.MethodPost, Path: prefix + "/signup", Access: web.Anyone, Handler: a.signup},
		{Method: http.MethodPost, Path: prefix + "/login", Access: web.Anyone, Handler: a.login},
		{Method: http.MethodPost, Path: prefix + "/refresh", Access: web.Anyone, Handler: a.refresh},
		{Method: http.MethodPost, Path: prefix + "/logout", Access: web.SignedIn.OrRevoked(), Handler: a.logout},
		{Method: http.MethodPost, Path: prefix + "/logout-all", Access: web.SignedIn, Handler: a.logoutAll},
		{Method: http.MethodGet, Path: prefix + "/sessions", Access: web.SignedIn, Query: web.TakesPage(), Handler: a.sessions},
		{Method: http.MethodDelete, Path: prefix + "/sessions/{id}", Access: web.SignedIn, Handler: a.revokeSession},
		{Method: http.MethodDelete, Path: prefix + "/account", Access: web.SignedIn, Handler: a.deleteAccount},
		{Method: http.MethodGet, Path: prefix + "/verify-email", Access: web.Anyone, Query: pageLink, Handler: show(links["verify"])},
		{Method: http.MethodPost, Path: prefix + "/verify-email", Access: web.Anyone.WithCaller(), Handler: submit(links["verify"], "", a.verify)},
		{Method: http.MethodPost, Path: prefix + "/verify-email/take-over", Access: web.Anyone, Handler: submit(links["verify"], "/take-over", a.takeOver)},
		{Method: http.MethodPost, Path: prefix + "/verify-email/reject", Access: web.Anyone, Handler: submit(links["verify"], "/reject", a.rejectSignUp)},
		{Method: http.MethodPost, Path: prefix + "/resend-verification", Access: web.Anyone, Handler: a.resend},
		{Method: http.MethodPost, Path: prefix + "/forgot-password", Access: web.Anyone, Handler: a.forgot},
		{Method: http.MethodGet, Path: prefix + "/reset-password", Access: web.Anyone, Query: pageLink, Handler: show(links["reset"])},
		{Method: http.MethodPost, Path: prefix + "/reset-password", Access: web.Anyone, Handler: submit(links["reset"], "", a.reset)},
		{Method: http.MethodPost, Path: prefix + "/change-password", Access: web.SignedIn, Handler: a.changePassword},
		{Method: http.MethodDelete, Path: prefix + "/password", Access: web.SignedIn, Handler: a.removePassword},
		{Method: http.MethodPost, Path: prefix + "/change-email", Access: web.SignedIn, Handler: a.changeEmail},
		{Method: http.MethodGet, Path: prefix + "/change-email/confirm", Access: web.Anyone, Query: pageLink, Handler: show(links["change"])},
		{Method: http.MethodPost, Path: prefix + "/change-email/confirm", Access: web.Anyone.WithCaller(), Handler: submit(links["change"], "", a.confirmEmail)},
		{Method: http.MethodGet, Path: prefix + "/change-email/revert", Access: web.Anyone, Query: pageLink, Handler: show(links["revert"])},
		{Method: http.MethodPost, Path: prefix + "/change-email/revert", Access: web.Anyone.WithCaller(), Handler: submit(links["revert"], "", a.revertEmail)},
		{Method: http.MethodPost, Path: prefix + "/reauthenticate", Access: web.SignedIn, Handler: a.reauthenticate},
		{Method: http.MethodPost, Path: prefix + "/reauthenticate/mail", Access: web.SignedIn, Handler: a.mailReauthCode},
		{Method: http.MethodPost, Path: prefix + "/reauthenticate/passkey", Access: web.SignedIn, Handler: a.beginPasskeyReauth},
		{Method: http.MethodPost, Path: prefix + "/reauthenticate/passkey/finish", Access: web.SignedIn, Handler: a.finishPasskeyReauth},
		{Method: http.MethodGet, Path: prefix + "/mfa/factors", Access: web.SignedIn, Handler: a.factors},
		{Method: http.MethodPost, Path: prefix + "/mfa/totp", Access: web.SignedIn, Handler: a.enrolTOTP},
		{Method: http.MethodPost, Path: prefix + "/mfa/totp/{id}/verify", Access: web.SignedIn, Handler: a.confirmTOTP},
		{Method: http.MethodDelete, Path: prefix + "/mfa/totp/{id}", Access: web.SignedIn, Handler: a.removeTOTP},
		{Method: http.MethodPost, Path: prefix + "/mfa/recovery-codes", Access: web.SignedIn, Handler: a.newCodes},
		{Method: http.MethodPost, Path: prefix + "/mfa/challenge", Access: web.Anyone, Handler: a.challenge},
		{Method: http.MethodPost, Path: prefix + "/passkeys", Access: web.SignedIn, Handler: a.beginPasskey},
		{Method: http.MethodPost, Path: prefix + "/passkeys/finish", Access: web.SignedIn, Handler: a.finishPasskey},
		{Method: http.MethodPatch, Path: prefix + "/passkeys/{id}", Access: web.SignedIn, Handler: a.renamePasskey},
		{Method: http.MethodDelete, Path: prefix + "/passkeys/{id}", Access: web.SignedIn, Handler: a.removePasskey},
		{Method: http.MethodPost, Path: prefix + "/passkeys/login", Access: web.Anyone, Handler: a.beginPasskeyLogin},
		{Method: http.MethodPost, Path: prefix + "/passkeys/login/finish", Access: web.Anyone, Handler: a.finishPasskeyLogin},
		{Method: http.MethodGet, Path: prefix + "/users", Access: web.AdminOnly, Query: web.TakesPage("q", "role", "status"), Handler: a.users, Recorded: true},
		{Method: http.MethodGet, Path: prefix + "/users/{id}", Access: web.AdminOnly, Handler: a.user, Recorded: true},
		{Method: http.MethodPatch, Path: prefix + "/users/{id}", Access: web.AdminOnly.Recently(), Handler: a.updateUser},
		{Method: http.MethodDelete, Path: prefix + "/users/{id}", Access: web.AdminOnly.Recently(), Handler: a.deleteUser},
		{Method: http.MethodPost, Path: prefix + "/users/{id}/revoke-sessions", Access: web.AdminOnly.Recently(), Handler: a.revokeUserSessions},
		{Method: http.MethodPost, Path: prefix + "/users/{id}/reset-mfa", Access: web.AdminOnly.Recently(), Handler: a.resetFactors},
		{Method: http.MethodPost, Path: prefix + "/revoke-all-sessions", Access: web.AdminOnly.Recently(), Handler: a.revokeAll},
		// The gateway does not route these.
		{Method: http.MethodGet, Path: token.AccountPath, Access: web.SignedIn, Handler: a.account},
		{Method: http.MethodPost, Path: web.ExportLinkPath, Access: web.SignedIn, Handler: a.mailExportLink},
		web.Export(func(r *http.Request, userID string) (json.RawMessage, error) {
			return a.accounts.PersonalData(r.Context(), userID)
		}),
		{Method: http.MethodGet, Path: token.RevocationsPath, Access: web.Anyone, Query: web.Takes("since"), Handler: a.revocations},
		{Method: http.MethodGet, Path: "/.well-known/jwks.json", Access: web.Anyone, Query: web.Takes().OrIgnores(), Handler: a.keys},
		{Method: http.MethodGet, Path: "/.well-known/openid-configuration", Access: web.Anyone, Query: web.Takes().OrIgnores(), Handler: a.discovery},
		{Method: http.MethodGet, Path: "/.well-known/webauthn", Access: web.Anyone, Query: web.Takes().OrIgnores(), Handler: a.relatedOrigins},
	}...)
}

type api struct {
	accounts *account.Accounts
	keyring  *signing.Keyring
	site     Site
}

type user struct {
	ID            string    `json:"id"`
	Email         string    `json:"email"`
	EmailVerified bool      `json:"emailVerified"`
	Name          string    `json:"name"`
	Role          string    `json:"role"`
	Status        string    `json:"status"`
	MFAEnabled    bool      `json:"mfaEnabled"`
	CreatedAt     time.Time `json:"createdAt"`
	UpdatedAt     time.Time `json:"updatedAt"`
	DeleteAt      time.Time `json:"deleteAt,omitzero"` // when the account will be deleted
}

func userOf(a account.Account) user {
	return user{
		ID: a.ID, Email: a.Email.Address, EmailVerified: a.EmailVerified, Name: a.Name,
		Role: a.Role, Status: a.Status, MFAEnabled: a.MFAEnabled, CreatedAt: a.CreatedAt, UpdatedAt: a.UpdatedAt, DeleteAt: a.DeleteAt.UTC(),
	}
}

type tokens struct {
	AccessToken      string    `json:"accessToken"`
	TokenType        string    `json:"tokenType"`
	ExpiresIn        int       `json:"expiresIn"` // seconds
	RefreshToken     string    `json:"refreshToken"`
	RefreshExpiresAt time.Time `json:"refreshExpiresAt"`
	SessionID        string    `json:"sessionId"`
	DeviceToken      string    `json:"deviceToken,omitempty"` // of a sign-in
}

func tokensOf(t signing.Tokens) tokens {
	return tokens{
		AccessToken: t.Access, TokenType: "Bearer", ExpiresIn: int(t.AccessExpiresIn.Seconds()),
		RefreshToken: t.Refresh, RefreshExpiresAt: t.RefreshExpiresAt, SessionID: t.SessionID, DeviceToken: t.Device,
	}
}

// signedIn is the answer to a sign-up or login. It has no tokens if the address must be
// verified first.
type signedIn struct {
	User   user    `json:"user"`
	Tokens *tokens `json:"tokens,omitempty"`
}
