package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/user-service/internal/profile"
)

// strictClient follows no redirect: one could lead the caller's token elsewhere.
var strictClient = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// Source returns a service at base, a URL whose path is ignored, as a source of exports. An
// empty base is a service that cannot be asked.
func Source(name, base string) profile.Source {
	return profile.Source{Name: name, Load: func(ctx context.Context, raw string) (io.ReadCloser, error) {
		if base == "" {
			return nil, errors.New("its URL is not configured")
		}
		res, err := ask(ctx, base, raw, request{method: http.MethodGet, path: web.ExportPath})
		if err != nil {
			return nil, err
		}
		return res.Body, nil
	}}
}

// mailTimeout bounds how long auth-service may take to store that a link is to be mailed.
const mailTimeout = 3 * time.Second

// MailLink returns a function that has auth-service at base mail links.
func MailLink(base string) profile.MailLink {
	return func(ctx context.Context, raw, secret string, expires time.Time) error {
		ctx, cancel := context.WithTimeout(ctx, mailTimeout)
		defer cancel()
		body, err := json.Marshal(web.ExportLink{Secret: secret, ExpiresAt: expires}) //nolint:gosec // auth-service seals it for the mail.
		if err != nil {
			return fmt.Errorf("encode link: %w", err)
		}
		res, err := ask(ctx, base, raw, request{method: http.MethodPost, path: web.ExportLinkPath, body: body})
		if err != nil {
			return fmt.Errorf("mail link: %w", err)
		}
		res.Body.Close()
		return nil
	}
}

// request is what is sent to a service.
type request struct {
	method, path string
	body         []byte // JSON, or nil
}

// ask sends a request to a service with the token of the caller. The caller closes the body of the
// response, which is a success.
func ask(ctx context.Context, base, raw string, send request) (*http.Response, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("parse URL: %w", err)
	}
	u.Path, u.RawQuery = send.path, ""
	req, err := http.NewRequestWithContext(ctx, send.method, u.String(), bytes.NewReader(send.body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+raw)
	if send.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := strictClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("send request: %w", err)
	}
	switch res.StatusCode {
	case http.StatusOK, http.StatusAccepted:
		return res, nil
	case http.StatusUnauthorized:
		err = token.ErrRevoked
	case http.StatusForbidden:
		err = profile.ErrExportUnproved
	default:
		err = fmt.Errorf("%s responded with %s", u.Redacted(), res.Status)
	}
	res.Body.Close()
	return nil, err
}
