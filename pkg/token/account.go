package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// AccountPath is where auth-service serves the Account of the token in a request. Only
// services reach it.
const AccountPath = "/internal/v1/account"

// Account is the account of a token's subject, with an address that may be unproved.
type Account struct {
	ID    string `json:"id"`
	Email string `json:"email"`
	Name  string `json:"name"`
}

// LoadAccount returns the account of a token, or fails with ErrRevoked.
type LoadAccount func(ctx context.Context, raw string) (Account, error)

const (
	accountTimeout  = 3 * time.Second
	accountMaxBytes = 16 << 10
)

// RemoteAccounts returns a loader that asks the host of cfg.JWKSURL.
func RemoteAccounts(cfg Remote) LoadAccount {
	client := &http.Client{Timeout: accountTimeout, CheckRedirect: noRedirect}
	return func(ctx context.Context, raw string) (Account, error) {
		account, err := fetchAccount(ctx, client, cfg.JWKSURL, raw)
		if err != nil {
			return Account{}, fmt.Errorf("fetch account: %w", err)
		}
		return account, nil
	}
}

func fetchAccount(ctx context.Context, client *http.Client, jwksURL, raw string) (Account, error) {
	u, err := url.Parse(jwksURL)
	if err != nil {
		return Account{}, err
	}
	u.Path, u.RawQuery = AccountPath, ""
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return Account{}, err
	}
	req.Header.Set("Authorization", "Bearer "+raw)
	res, err := client.Do(req)
	if err != nil {
		return Account{}, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusUnauthorized {
		return Account{}, ErrRevoked
	}
	if res.StatusCode != http.StatusOK {
		return Account{}, fmt.Errorf("%s responded with %s", u.Redacted(), res.Status)
	}
	var body struct {
		Data Account `json:"data"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, accountMaxBytes)).Decode(&body); err != nil {
		return Account{}, err
	}
	if body.Data.ID == "" || body.Data.Email == "" {
		return Account{}, errors.New("account without id or address")
	}
	return body.Data, nil
}
