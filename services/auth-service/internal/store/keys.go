package store

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

// keysLock serializes changes, so that replicas that start together create one first key.
const keysLock = 0x68675f6b657973 // "hg_keys"

// Keys keeps signing keys in Postgres, with the private keys sealed. It implements
// signing.Store.
type Keys struct {
	db     *postgres.Pool
	box    *outbox.Box
	sealer *event.Sealer
}

var _ signing.Store = (*Keys)(nil)

// NewKeys returns a store of keys on db, which must have Schema and outbox.Schema.
func NewKeys(db *postgres.Pool, box *outbox.Box, sealer *event.Sealer) *Keys {
	return &Keys{db: db, box: box, sealer: sealer}
}

// Load implements signing.Store.
func (k *Keys) Load(ctx context.Context) ([]signing.Key, error) {
	keys, err := k.read(ctx, k.db)
	if err != nil {
		return nil, fmt.Errorf("load signing keys: %w", err)
	}
	return keys, nil
}

// Change implements signing.Store.
func (k *Keys) Change(ctx context.Context, decide func([]signing.Key) (signing.Change, error)) error {
	const remove = `DELETE FROM signing_keys WHERE kid = $1`
	err := k.db.Transact(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(keysLock)); err != nil {
			return err
		}
		keys, err := k.read(ctx, tx)
		if err != nil {
			return err
		}
		change, err := decide(keys)
		if err != nil {
			return err
		}
		if change.Add != nil {
			if err := k.add(ctx, tx, *change.Add); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, remove, change.Remove); err != nil {
			return err
		}
		return k.box.Add(ctx, tx, change.Events...)
	})
	if err != nil {
		return fmt.Errorf("change signing keys: %w", err)
	}
	return nil
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func (k *Keys) read(ctx context.Context, db querier) ([]signing.Key, error) {
	const query = `
		SELECT kid, private_key, created_at, COALESCE(activates_at, created_at) AS activates_at
		FROM signing_keys
		ORDER BY activates_at DESC, kid`
	rows, err := db.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (signing.Key, error) {
		var key signing.Key
		var sealed string
		if err := row.Scan(&key.ID, &sealed, &key.CreatedAt, &key.ActivatesAt); err != nil {
			return key, err
		}
		encoded, err := k.sealer.Open(event.Sealed(sealed), keyContext(key.ID))
		if err != nil {
			return key, fmt.Errorf("open key %s (was ENCRYPTION_KEY changed?): %w", key.ID, err)
		}
		der, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return key, fmt.Errorf("decode key %s: %w", key.ID, err)
		}
		private, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return key, fmt.Errorf("decode key %s: %w", key.ID, err)
		}
		signer, ok := private.(crypto.Signer)
		if !ok {
			return key, fmt.Errorf("key %s cannot sign", key.ID)
		}
		key.Signer = signer
		return key, nil
	})
}

func (k *Keys) add(ctx context.Context, tx pgx.Tx, key signing.Key) error {
	const query = `
		INSERT INTO signing_keys (kid, private_key, created_at, activates_at)
		VALUES ($1, $2, $3, $4)`
	der, err := x509.MarshalPKCS8PrivateKey(key.Signer)
	if err != nil {
		return err
	}
	sealed := k.sealer.Seal(base64.StdEncoding.EncodeToString(der), keyContext(key.ID))
	_, err = tx.Exec(ctx, query, key.ID, string(sealed), key.CreatedAt, key.ActivatesAt)
	return err
}

func keyContext(kid string) string { return "signing key " + kid }
