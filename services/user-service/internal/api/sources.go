package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/user-service/internal/profile"
)

// Source returns a service at base, a URL whose path is ignored, as a source of exports. An
// empty base is a service that cannot be asked.
func Source(name, base string) profile.Source {
	return profile.Source{Name: name, Load: func(ctx context.Context, raw string) (io.ReadCloser, error) {
		if base == "" {
			return nil, errors.New("its URL is not configured")
		}
		res, err := ask(ctx, base, raw, token.Request{Method: http.MethodGet, Path: web.ExportPath})
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
		res, err := ask(ctx, base, raw, token.Request{Method: http.MethodPost, Path: web.ExportLinkPath, Body: body})
		if err != nil {
			return fmt.Errorf("mail link: %w", err)
		}
		res.Body.Close()
		return nil
	}
}

// ask is token.Ask for a service that must succeed. It fails with profile.ErrExportUnproved if the
// service refuses the caller.
func ask(ctx context.Context, base, raw string, r token.Request) (*http.Response, error) {
	res, err := token.Ask(ctx, base, raw, r)
	switch {
	case err != nil:
		return nil, err
	case res.StatusCode == http.StatusOK, res.StatusCode == http.StatusAccepted:
		return res, nil
	case res.StatusCode == http.StatusForbidden:
		err = profile.ErrExportUnproved
	default:
		err = fmt.Errorf("%s responded with %s", res.Request.URL.Redacted(), res.Status)
	}
	res.Body.Close()
	return nil, err
}
