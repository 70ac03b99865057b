package store

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// keysLock keeps replicas that start together from each making a first key.
const keysLock = 0x68675f6b657973 // "hg_keys"

// SigningKeys returns the keys that access tokens are signed with, newest first,
// and makes the first one. Private keys are sealed in the database.
func (s *Store) SigningKeys(ctx context.Context, sealer *event.Sealer) ([]account.SigningKey, error) {
	var keys []account.SigningKey
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(keysLock)); err != nil {
			return err
		}
		var err error
		keys, err = readKeys(ctx, tx, sealer)
		if err != nil || len(keys) > 0 {
			return err
		}
		key, err := addKey(ctx, tx, sealer)
		keys = append(keys, key)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("load signing keys: %w", err)
	}
	return keys, nil
}

func readKeys(ctx context.Context, tx pgx.Tx, sealer *event.Sealer) ([]account.SigningKey, error) {
	rows, err := tx.Query(ctx, `SELECT kid, private_key FROM signing_keys ORDER BY created_at DESC, kid`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (account.SigningKey, error) {
		var kid, sealed string
		if err := row.Scan(&kid, &sealed); err != nil {
			return account.SigningKey{}, err
		}
		encoded, err := sealer.Open(event.Sealed(sealed), keyContext(kid))
		if err != nil {
			return account.SigningKey{}, fmt.Errorf("open key %s (was ENCRYPTION_KEY changed?): %w", kid, err)
		}
		der, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return account.SigningKey{}, fmt.Errorf("decode key %s: %w", kid, err)
		}
		key, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return account.SigningKey{}, fmt.Errorf("decode key %s: %w", kid, err)
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return account.SigningKey{}, fmt.Errorf("key %s cannot sign", kid)
		}
		return account.SigningKey{ID: kid, Key: signer}, nil
	})
}

func addKey(ctx context.Context, tx pgx.Tx, sealer *event.Sealer) (account.SigningKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return account.SigningKey{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return account.SigningKey{}, err
	}
	kid := uuid.NewString()
	sealed := sealer.Seal(base64.StdEncoding.EncodeToString(der), keyContext(kid))
	_, err = tx.Exec(ctx, `INSERT INTO signing_keys (kid, private_key, created_at) VALUES ($1, $2, now())`, kid, string(sealed))
	return account.SigningKey{ID: kid, Key: key}, err
}

func keyContext(kid string) string { return "signing key " + kid }
