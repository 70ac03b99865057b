package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/user-service/internal/profile"
)

// Source returns a service at base, a URL whose path is ignored, as a source of exports. An
// empty base is a service that cannot be asked.
func Source(name, base string) profile.Source {
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // A redirect could lead the caller's token elsewhere.
	}}
	return profile.Source{Name: name, Load: func(ctx context.Context, raw string) (io.ReadCloser, error) {
		if base == "" {
			return nil, errors.New("its URL is not configured")
		}
		return load(ctx, client, base, raw)
	}}
}

func load(ctx context.Context, client *http.Client, base, raw string) (io.ReadCloser, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("parse URL: %w", err)
	}
	u.Path, u.RawQuery = web.ExportPath, ""
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+raw)
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("send request: %w", err)
	}
	switch res.StatusCode {
	case http.StatusOK:
		return res.Body, nil
	case http.StatusUnauthorized:
		res.Body.Close()
		return nil, token.ErrRevoked
	}
	res.Body.Close()
	return nil, fmt.Errorf("%s responded with %s", u.Redacted(), res.Status)
}
