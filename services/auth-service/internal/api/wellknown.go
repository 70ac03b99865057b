package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
)

// revocations lists revoked sessions for the verifiers of other processes. It needs no
// authentication: a session id is not a secret.
func (a *api) revocations(w http.ResponseWriter, r *http.Request) error {
	var since time.Time
	if text := web.QueryOf(r)["since"]; text != "" {
		var err error
		if since, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return problem.Validation(problem.Field{Field: "since", Code: "invalid_format", Message: "Invalid timestamp: use RFC 3339, for example 2026-01-31T12:00:00Z."})
		}
	}
	snapshot, err := a.accounts.Revocations(r.Context(), since)
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, snapshot)
}

// account serves the caller's account to another service that the caller has called: an
// access token has no address that nobody has proved.
func (a *api) account(w http.ResponseWriter, r *http.Request) error {
	own, err := a.accounts.Own(r.Context(), web.Caller(r))
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, token.Account{ID: own.ID, Email: own.Email.Address, Name: own.Name})
}

// keys serves the JWK set without an envelope, as JOSE libraries expect it (RFC 7517).
func (a *api) keys(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "public, max-age=60")
	return write(w, a.keyring.JWKS())
}

// discovery serves the location of the keys and the claims that they sign, for libraries
// that verify access tokens (OpenID Connect Discovery 1.0, 3). OpenID Connect logins are
// not supported, so their endpoints are missing.
func (a *api) discovery(w http.ResponseWriter, _ *http.Request) error {
	data, err := json.Marshal(struct {
		Issuer     string   `json:"issuer"`
		JWKSURI    string   `json:"jwks_uri"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
		Subjects   []string `json:"subject_types_supported"`
		Claims     []string `json:"claims_supported"`
	}{
		Issuer:     a.site.Issuer,
		JWKSURI:    strings.TrimSuffix(a.site.BaseURL, "/") + "/.well-known/jwks.json",
		Algorithms: []string{"ES256", "EdDSA"},
		Subjects:   []string{"public"},
		Claims:     []string{"iss", "aud", "sub", "exp", "iat", "jti", "sid", "role", "session_iat", "auth_time", "amr", "acr", "email", "email_verified", "name"},
	})
	if err != nil {
		return err
	}
	return writeDocument(w, data)
}

// relatedOrigins serves the origins outside of the passkeys' domain whose pages may use them
// (Web Authentication, 5.11). The list may be empty.
func (a *api) relatedOrigins(w http.ResponseWriter, _ *http.Request) error {
	data, err := json.Marshal(struct {
		Origins []string `json:"origins"`
	}{append([]string{}, a.site.RelatedOrigins...)})
	if err != nil {
		return err
	}
	return writeDocument(w, data)
}

// writeDocument sends a document about this installation.
func writeDocument(w http.ResponseWriter, data []byte) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "public, max-age=300")
	return write(w, data)
}

// write sends a body without an envelope.
func write(w http.ResponseWriter, data []byte) error {
	if _, err := w.Write(data); err != nil {
		return errors.Join(http.ErrAbortHandler, err)
	}
	return nil
}
