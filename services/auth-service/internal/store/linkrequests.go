package store

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// AddLinkRequest implements account.Store.
func (s *Store) AddLinkRequest(ctx context.Context, r account.LinkRequest) error {
	const query = `
		INSERT INTO mail_requests (purpose, email, email_key, account_id, name, password, origin, accepted_at, due_at)
		VALUES (@purpose, @email, @email_key, @account_id, @name, @password, @origin, @accepted_at, @accepted_at)`
	origin, err := json.Marshal(r.Origin)
	if err != nil {
		return fmt.Errorf("add link request: %w", err)
	}
	args := pgx.StrictNamedArgs{
		"purpose": r.Purpose, "email": r.Email.Address, "email_key": r.Email.Key, "origin": origin, "accepted_at": r.Accepted,
		"account_id": nil, "name": nil, "password": nil,
	}
	if p := r.Pending; p != nil {
		args["account_id"], args["name"], args["password"] = p.ID, p.Name, p.PasswordHash
	}
	batch := &pgx.Batch{}
	batch.Queue(query, args)
	queueStoredAnswer(batch, r.Idempotency)
	if err := s.db.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("add link request: %w", err)
	}
	return nil
}

// linkRequestRetry is how long a failed request waits for the next attempt.
const linkRequestRetry = 30 * time.Second

// TakeLinkRequest implements account.Store.
func (s *Store) TakeLinkRequest(ctx context.Context, now time.Time, handle func(account.LinkRequest, *account.Change) error) (bool, error) {
	const remove = `DELETE FROM mail_requests WHERE id = $1`
	const postpone = `UPDATE mail_requests SET due_at = $2 WHERE id = $1`
	var id int64
	err := s.db.Transact(ctx, func(tx pgx.Tx) error {
		id = 0
		r, err := nextLinkRequest(ctx, tx, now, &id)
		if err != nil {
			return err
		}
		if err := s.handleLinkRequest(ctx, tx, r, handle); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, remove, id)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) && id == 0 {
		return false, nil
	}
	if err == nil {
		return true, nil
	}
	if id != 0 {
		_, postponeErr := s.db.Exec(ctx, postpone, id, now.Add(linkRequestRetry))
		err = errors.Join(err, postponeErr)
	}
	return false, fmt.Errorf("handle link request: %w", err)
}

func nextLinkRequest(ctx context.Context, tx pgx.Tx, now time.Time, id *int64) (account.LinkRequest, error) {
	const query = `
		SELECT id, purpose, email, email_key, account_id::text, name, password, origin, accepted_at
		FROM mail_requests
		WHERE due_at <= $1
		ORDER BY due_at, id
		LIMIT 1
		FOR UPDATE SKIP LOCKED`
	var (
		r                 account.LinkRequest
		owner, name, hash *string
		origin            []byte
	)
	err := tx.QueryRow(ctx, query, now).Scan(id, &r.Purpose, &r.Email.Address, &r.Email.Key, &owner, &name, &hash, &origin, &r.Accepted)
	if err != nil {
		return r, err
	}
	if owner != nil && name != nil && hash != nil {
		r.Pending = &account.Account{
			ID: *owner, Email: r.Email, Name: *name, Role: token.RoleUser, Status: account.Active,
			PasswordHash: *hash, CreatedAt: r.Accepted, UpdatedAt: r.Accepted, Version: r.Accepted.UnixMicro(),
		}
	}
	return r, json.Unmarshal(origin, &r.Origin)
}

func (s *Store) handleLinkRequest(ctx context.Context, tx pgx.Tx, r account.LinkRequest, handle func(account.LinkRequest, *account.Change) error) error {
	const find = `SELECT id::text FROM accounts WHERE email_key = $1`
	// Requests for the same address are handled one at a time, so two sign-ups create one account.
	if _, err := tx.Exec(ctx, lockAddress, addressHash(r.Email.Key)); err != nil {
		return err
	}
	var owner string
	err := tx.QueryRow(ctx, find, r.Email.Key).Scan(&owner)
	if err == nil {
		if err := tx.QueryRow(ctx, usedByOwner, r.Email.Key, r.Origin.Network(), s.time()).Scan(&r.FromKnownNetwork); err != nil {
			return err
		}
		return s.changeAccount(ctx, tx, owner, r.Lock(), func(c *account.Change) error { return handle(r, c) })
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	c := account.Change{AllowMail: s.allowMail(tx, "")}
	if err := handle(r, &c); err != nil {
		return err
	}
	batch := &pgx.Batch{}
	if c.Account.ID != "" {
		queueAccount(batch, c)
	}
	if err := s.box.Queue(batch, c.Events...); err != nil || batch.Len() == 0 {
		return err
	}
	return tx.SendBatch(ctx, batch).Close()
}

const lockAddress = `SELECT pg_advisory_xact_lock(hashtextextended(encode($1, 'hex'), 0))`

func addressHash(key string) []byte {
	sum := sha256.Sum256([]byte(key))
	return sum[:]
}
