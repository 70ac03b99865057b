package token

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
)

// Request is what Ask sends. A body is JSON.
type Request struct {
	Method, Path string
	Body         []byte
}

var askClient = &http.Client{CheckRedirect: noRedirect}

// Ask sends a request to another service, at the host of base, with the token of a caller. The
// service decides what the caller may. It follows no redirect, which could lead the token
// elsewhere, and takes until ctx ends. It fails with ErrRevoked if the service does not accept the
// token. The caller closes the body of the response, whatever its status.
func Ask(ctx context.Context, base, raw string, r Request) (*http.Response, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("parse URL: %w", err)
	}
	u.Path, u.RawQuery = r.Path, ""
	req, err := http.NewRequestWithContext(ctx, r.Method, u.String(), bytes.NewReader(r.Body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+raw)
	if r.Body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := askClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("send request: %w", err)
	}
	if res.StatusCode == http.StatusUnauthorized {
		res.Body.Close()
		return nil, ErrRevoked
	}
	return res, nil
}
