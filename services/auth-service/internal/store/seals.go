package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// Seals are the values in the database that are sealed with ENCRYPTION_KEY.
type Seals struct {
	db     *postgres.Pool
	sealer *event.Sealer
}

// NewSeals returns the sealed values in db, which must have Schema.
func NewSeals(db *postgres.Pool, sealer *event.Sealer) *Seals { return &Seals{db: db, sealer: sealer} }

// ErrUnknownSealingKey is returned while values are sealed with keys that are not listed.
var ErrUnknownSealingKey = errors.New("sealed with a key that is not listed")

// sealedValues are the sealed values of one column.
type sealedValues struct {
	name    string // for people
	context func(id, owner string) string
	count   string // returns the names of the keys, each with the number of its values
	read    string // locks and returns values that do not begin with $1, in the order of ids after $2
	write   string // replaces the values of the ids $1 by $2
}

// sealed must have every column that account.Config.AtRest or Keys seals.
var sealed = []sealedValues{
	{
		name:    "signing keys",
		context: func(kid, _ string) string { return keyContext(kid) },
		count:   `SELECT regexp_replace(private_key, '[^.]*$', ''), count(*) FROM signing_keys GROUP BY 1`,
		read: `
			SELECT kid, '', private_key
			FROM signing_keys
			WHERE NOT starts_with(private_key, $1) AND kid > $2
			ORDER BY kid
			LIMIT $3
			FOR UPDATE SKIP LOCKED`,
		write: `
			UPDATE signing_keys
			SET private_key = v.sealed
			FROM unnest($1::text[], $2::text[]) AS v (id, sealed)
			WHERE kid = v.id`,
	},
	{
		name:    "TOTP secrets",
		context: account.FactorContext,
		count:   `SELECT regexp_replace(secret, '[^.]*$', ''), count(*) FROM factors WHERE kind = 'totp' GROUP BY 1`,
		read: `
			SELECT id::text, account_id::text, secret
			FROM factors
			WHERE kind = 'totp' AND NOT starts_with(secret, $1) AND ($2 = '' OR id > NULLIF($2, '')::uuid)
			ORDER BY id
			LIMIT $3
			FOR UPDATE SKIP LOCKED`,
		write: `
			UPDATE factors
			SET secret = v.sealed
			FROM unnest($1::text[], $2::text[]) AS v (id, sealed)
			WHERE factors.id = v.id::uuid`,
	},
	{
		name:    "stored answers",
		context: func(key, _ string) string { return account.AnswerContext(key) },
		count:   `SELECT regexp_replace(answer, '[^.]*$', ''), count(*) FROM idempotency_keys WHERE answer IS NOT NULL GROUP BY 1`,
		read: `
			SELECT encode(key, 'hex'), '', answer
			FROM idempotency_keys
			WHERE NOT starts_with(answer, $1) AND key > decode($2, 'hex')
			ORDER BY key
			LIMIT $3
			FOR UPDATE SKIP LOCKED`,
		write: `
			UPDATE idempotency_keys
			SET answer = v.sealed
			FROM unnest($1::text[], $2::text[]) AS v (id, sealed)
			WHERE key = decode(v.id, 'hex')`,
	},
}

// Check fails with ErrUnknownSealingKey if values cannot be opened because their key is not
// listed.
func (s *Seals) Check(ctx context.Context) error {
	var unknown []string
	for _, values := range sealed {
		counts, err := s.count(ctx, values)
		if err != nil {
			return err
		}
		for key, n := range counts {
			if !s.sealer.Has(key) {
				unknown = append(unknown, fmt.Sprintf("%d %s with %q", n, values.name, cmp.Or(event.SealingKeyID(key), service.DefaultKey)))
			}
		}
	}
	if len(unknown) > 0 {
		return fmt.Errorf("%w: %s", ErrUnknownSealingKey, strings.Join(unknown, ", "))
	}
	return nil
}

// count returns how many values each key has sealed.
func (s *Seals) count(ctx context.Context, values sealedValues) (map[string]int, error) {
	rows, err := s.db.Query(ctx, values.count)
	if err != nil {
		return nil, fmt.Errorf("count %s: %w", values.name, err)
	}
	byKey, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct {
		Key string
		N   int
	}])
	if err != nil {
		return nil, fmt.Errorf("count %s: %w", values.name, err)
	}
	counts := map[string]int{}
	for _, k := range byKey {
		counts[k.Key] = k.N
	}
	return counts, nil
}

const (
	sealBatch = 500
	// lockedWait is the wait before rows are tried again that others had locked.
	lockedWait = 200 * time.Millisecond
)

// Reencrypt seals every value with the first key that is not, and tells done after each
// batch, which is one transaction. It waits for nobody and nobody waits longer than a batch
// for it. After an interruption it goes on where it was. When it returns nil, no value is
// sealed with another key, unless another process seals with one.
func (s *Seals) Reencrypt(ctx context.Context, done func(name string, n int)) error {
	for _, values := range sealed {
		for {
			if err := s.pass(ctx, values, done); err != nil {
				return fmt.Errorf("re-encrypt %s: %w", values.name, err)
			}
			counts, err := s.count(ctx, values)
			if err != nil {
				return err
			}
			delete(counts, s.sealer.First())
			if len(counts) == 0 {
				break
			}
			select { // The rest was locked.
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(lockedWait):
			}
		}
	}
	return nil
}

// pass seals the values that nobody has locked.
func (s *Seals) pass(ctx context.Context, values sealedValues, done func(name string, n int)) error {
	after := ""
	for {
		var ids, again []string
		err := s.db.Transact(ctx, func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, values.read, s.sealer.First(), after, sealBatch)
			if err != nil {
				return err
			}
			batch, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ ID, Owner, Sealed string }])
			if err != nil {
				return err
			}
			ids, again = nil, nil
			for _, v := range batch {
				plain, err := s.sealer.Open(event.Sealed(v.Sealed), values.context(v.ID, v.Owner))
				if err != nil {
					return fmt.Errorf("open %s: %w", v.ID, err)
				}
				ids, again = append(ids, v.ID), append(again, string(s.sealer.Seal(plain, values.context(v.ID, v.Owner))))
			}
			_, err = tx.Exec(ctx, values.write, ids, again)
			return err
		})
		if err != nil || len(ids) == 0 {
			return err
		}
		done(values.name, len(ids))
		after = ids[len(ids)-1]
	}
}
