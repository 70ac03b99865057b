package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// Locks are always taken in the order account, then some of its sessions by id, then the
// budgets of mails, so that concurrent changes and refreshes cannot deadlock.

// lastAdminLock serializes transactions that demote, disable or delete an
// administrator.
const lastAdminLock = 0x68675f61646d696e // "hg_admin"

// CreateAccount implements account.Store.
func (s *Store) CreateAccount(ctx context.Context, decide func(*account.Change) error) error {
	err := s.db.Transact(ctx, func(tx pgx.Tx) error {
		c := account.Change{AllowMail: s.allowMail(tx, "")}
		if err := decide(&c); err != nil {
			return err
		}
		batch := &pgx.Batch{}
		queueAccount(batch, c)
		if err := s.box.Queue(batch, c.Events...); err != nil {
			return err
		}
		return tx.SendBatch(ctx, batch).Close()
	})
	if postgres.Violates(err, "accounts_email_key") {
		return account.ErrEmailTaken
	}
	if err != nil {
		return fmt.Errorf("insert account: %w", err)
	}
	return nil
}

const insertAccount = `
	INSERT INTO accounts (id, email, email_key, email_verified, name, role, status, mfa_enabled, password_hash,
		password_proved, provisional, created_at, updated_at, delete_at, version)
	VALUES (@id, @email, @email_key, @email_verified, @name, @role, @status, @mfa_enabled, @password_hash,
		@password_proved, @provisional, @created_at, @updated_at, @delete_at, @version)`

func queueAccount(batch *pgx.Batch, c account.Change) {
	batch.Queue(insertAccount, accountArgs(c.Account))
	queueNewRows(batch, c)
}

// ChangeAccount implements account.Store.
func (s *Store) ChangeAccount(ctx context.Context, id string, lock account.SessionLock, decide func(*account.Change) error) error {
	err := s.db.Transact(ctx, func(tx pgx.Tx) error {
		return s.changeAccount(ctx, tx, id, lock, decide)
	})
	if err != nil {
		return fmt.Errorf("change account: %w", err)
	}
	return nil
}

func (s *Store) changeAccount(ctx context.Context, tx pgx.Tx, id string, lock account.SessionLock, decide func(*account.Change) error) error {
	c, err := s.lockAccount(ctx, tx, id, lock)
	if err != nil {
		return err
	}
	c.AllowMail = s.allowMail(tx, id)
	before := c
	before.Sessions, before.Factors, before.RecoveryCodes = slices.Clone(c.Sessions), slices.Clone(c.Factors), slices.Clone(c.RecoveryCodes)
	if err := decide(&c); err != nil {
		return err
	}
	if activeAdmin(before.Account) && (c.Deleted || !activeAdmin(c.Account)) {
		if err := requireAnotherAdmin(ctx, tx, id); err != nil {
			return err
		}
	}
	if c.IfNewDevice != nil {
		isNew := false
		if err := tx.QueryRow(ctx, newDevice, id, c.IfNewDevice.Network, s.time(), c.IfNewDevice.UserAgent).Scan(&isNew); err != nil {
			return fmt.Errorf("compare devices: %w", err)
		}
		if isNew {
			c.Events = append(c.Events, c.IfNewDevice.Event)
		}
	}
	if c.NewSession != nil && lock.Surplus {
		for i := range c.Sessions {
			c.Events = append(c.Events, c.Sessions[i].EndAsOldest(ctx, s.time()))
		}
	}
	batch := &pgx.Batch{}
	queueChange(batch, before, c)
	events := c.Events
	if c.Replacement != nil {
		events = append(events, c.Replacement.Events...)
	}
	if err := s.box.Queue(batch, events...); err != nil || batch.Len() == 0 {
		return err
	}
	err = tx.SendBatch(ctx, batch).Close()
	switch {
	case postgres.Violates(err, "accounts_email_key"):
		return account.ErrEmailTaken
	case postgres.Violates(err, "factors_lookup_key"):
		return account.ErrPasskeyTaken
	case postgres.Violates(err, "finished_ceremonies_pkey"):
		return account.ErrPasskeyExpired
	}
	return err
}

func (s *Store) lockAccount(ctx context.Context, tx pgx.Tx, id string, lock account.SessionLock) (account.Change, error) {
	const lockOwner = `
		SELECT ` + accountColumns + `
		FROM accounts a
		WHERE a.id = $1
		FOR UPDATE`
	// The lock of the account protects these rows as well.
	const readFactors = `
		SELECT ` + factorColumns + `
		FROM factors f
		WHERE f.account_id = $1
		ORDER BY f.id`
	const readCodes = `
		SELECT hash
		FROM recovery_codes
		WHERE account_id = $1`
	c := account.Change{Locked: lock}
	err := tx.QueryRow(ctx, lockOwner, id).Scan(scanAccount(&c.Account)...)
	if errors.Is(err, pgx.ErrNoRows) {
		return c, account.ErrNotFound
	}
	if err != nil {
		return c, fmt.Errorf("lock account: %w", err)
	}
	batch := &pgx.Batch{}
	if query, args := s.lockSessions(id, lock); query != "" {
		batch.Queue(query, args...).Query(func(rows pgx.Rows) (err error) {
			c.Sessions, err = pgx.CollectRows(rows, scanSession)
			return err
		})
	}
	batch.Queue(readFactors, id).Query(func(rows pgx.Rows) (err error) {
		c.Factors, err = pgx.CollectRows(rows, scanFactor)
		return err
	})
	batch.Queue(readCodes, id).Query(func(rows pgx.Rows) (err error) {
		c.RecoveryCodes, err = pgx.CollectRows(rows, scanCode)
		return err
	})
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return c, fmt.Errorf("lock sessions of account: %w", err)
	}
	return c, nil
}

// lockSessions returns the query that locks and reads sessions of an account, or none. Expired
// sessions count as live while their access tokens may still be valid.
func (s *Store) lockSessions(accountID string, lock account.SessionLock) (string, []any) {
	const all = `
		SELECT ` + sessionColumns + `
		FROM sessions s
		WHERE s.account_id = $1 AND ` + liveSession + ` AND s.expires_at > $2
		ORDER BY s.id
		FOR UPDATE`
	const one = `
		SELECT ` + sessionColumns + `
		FROM sessions s
		WHERE s.id = $3 AND s.account_id = $1 AND ` + liveSession + ` AND s.expires_at > $2
		FOR UPDATE`
	now := s.time()
	args := []any{accountID, now.Add(-2 * token.MaxLifetime)}
	switch {
	case lock.All:
		return all, args
	case lock.ID != "":
		return one, append(args, lock.ID)
	case lock.Surplus && s.Limits.Sessions > 0:
		return lockSurplus, []any{accountID, now, s.Limits.Sessions - 1}
	}
	return "", nil
}

func activeAdmin(a account.Account) bool {
	return a.Role == token.RoleAdmin && a.Status == account.Active && a.DeleteAt.IsZero()
}

// requireAnotherAdmin fails with ErrLastAdmin if the account with the id is the only
// active administrator.
func requireAnotherAdmin(ctx context.Context, tx pgx.Tx, id string) error {
	const lock = `SELECT pg_advisory_xact_lock($1)`
	const query = `SELECT EXISTS (SELECT FROM accounts WHERE role = 'admin' AND status = 'active' AND delete_at IS NULL AND id <> $1)`
	if _, err := tx.Exec(ctx, lock, int64(lastAdminLock)); err != nil {
		return err
	}
	var another bool
	if err := tx.QueryRow(ctx, query, id).Scan(&another); err != nil {
		return err
	}
	if !another {
		return account.ErrLastAdmin
	}
	return nil
}

func queueChange(batch *pgx.Batch, before, after account.Change) {
	const writeAccount = `
		UPDATE accounts
		SET email = @email, email_key = @email_key, email_verified = @email_verified, name = @name, role = @role,
			status = @status, mfa_enabled = @mfa_enabled, password_hash = @password_hash,
			password_changed_at = CASE WHEN password_hash = @password_hash THEN password_changed_at ELSE @updated_at END,
			password_proved = @password_proved, provisional = @provisional, created_at = @created_at, updated_at = @updated_at,
			delete_at = @delete_at, version = @version
		WHERE id = @id`
	const deleteAccount = `
		DELETE FROM accounts
		WHERE id = $1`
	for i := range after.Sessions {
		queueSessionChange(batch, before.Sessions[i], after.Sessions[i])
	}
	switch {
	case after.Deleted:
		batch.Queue(deleteAccount, after.Account.ID)
		outbox.QueueErasure(batch, after.Account.ID)
		if after.Replacement != nil {
			queueAccount(batch, *after.Replacement)
		}
		return
	case before.Account != after.Account:
		batch.Queue(writeAccount, accountArgs(after.Account))
	}
	queueFinishedCeremony(batch, after.FinishedCeremony)
	queueFactors(batch, before, after)
	queueNewRows(batch, after)
}

// queueNewRows stores what a change adds to an account, and what it revokes.
func queueNewRows(batch *pgx.Batch, c account.Change) {
	const deleteLinks = `
		DELETE FROM one_time_tokens
		WHERE account_id = $1 AND purpose = $2 AND created_at > $3`
	const deleteChallenges = `
		DELETE FROM challenges
		WHERE account_id = $1`
	for _, v := range c.RevokeTokens {
		batch.Queue(deleteLinks, c.Account.ID, v.Purpose, v.CreatedAfter)
	}
	if c.RevokeChallenges {
		batch.Queue(deleteChallenges, c.Account.ID)
	}
	for _, proof := range c.NewTokens {
		queueToken(batch, proof)
	}
	if c.NewSession != nil {
		queueSession(batch, *c.NewSession)
	}
	queueStoredAnswer(batch, c.Idempotency)
	if c.ClearAttempts != nil {
		queueClearAttempts(batch, c.ClearAttempts)
	}
	queueMailProof(batch, c)
}
