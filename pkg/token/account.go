package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
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
	return func(ctx context.Context, raw string) (Account, error) {
		ctx, cancel := context.WithTimeout(ctx, accountTimeout)
		defer cancel()
		account, err := fetchAccount(ctx, cfg.JWKSURL, raw)
		if err != nil {
			return Account{}, fmt.Errorf("fetch account: %w", err)
		}
		return account, nil
	}
}

func fetchAccount(ctx context.Context, jwksURL, raw string) (Account, error) {
	res, err := Ask(ctx, jwksURL, raw, Request{Method: http.MethodGet, Path: AccountPath})
	if err != nil {
		return Account{}, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return Account{}, fmt.Errorf("%s responded with %s", res.Request.URL.Redacted(), res.Status)
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
