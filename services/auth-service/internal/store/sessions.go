package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

const sessionColumns = `s.id::text, s.account_id::text, s.generation, s.rotated_at, s.device_name, s.user_agent, s.ip,
	COALESCE(s.network, ''), s.created_at, s.last_used_at, s.expires_at, s.ends_at,
	COALESCE(s.revoked_at, (SELECT before FROM revoked_before WHERE s.created_at < before)), s.revoked_reason, COALESCE(s.authenticated_at, s.created_at), s.proved,
	COALESCE(s.methods, ''), s.proof_hash, s.proof_expires_at, s.mail_code_hash, COALESCE(s.mail_code_attempts, 0), s.mail_code_expires_at`

// liveSession is the condition for a session that has not been revoked, alone or with all
// others. It may have expired.
const liveSession = `s.revoked_at IS NULL AND s.created_at >= COALESCE((SELECT before FROM revoked_before), '-infinity')`

// sessionOfOwner is the condition for a session of an account a that makes its network and its
// device known at $3: it is live, or was begun with the present password. Whoever began an
// earlier one may be the reason for the new password.
const sessionOfOwner = `(` + liveSession + ` AND s.expires_at > $3 OR s.created_at > COALESCE(a.password_changed_at, '-infinity'))`

// sessionRow is a row of sessions; the extra fields are columns that may be NULL.
type sessionRow struct {
	account.Session

	revokedAt     *time.Time
	revokedReason *string

	proof, mailCode               []byte
	proofExpires, mailCodeExpires *time.Time
}

func (r *sessionRow) targets() []any {
	return []any{
		&r.ID, &r.AccountID, &r.Generation, &r.RotatedAt, &r.DeviceName, &r.UserAgent, &r.IP,
		&r.Network, &r.CreatedAt, &r.LastUsedAt, &r.ExpiresAt, &r.EndsAt, &r.revokedAt, &r.revokedReason, &r.AuthenticatedAt, &r.Proved,
		&r.Methods, &r.proof, &r.proofExpires, &r.mailCode, &r.MailCode.Attempts, &r.mailCodeExpires,
	}
}

func (r *sessionRow) session() account.Session {
	s := r.Session
	if r.revokedAt != nil {
		s.RevokedAt = *r.revokedAt
	}
	if r.revokedReason != nil {
		s.RevokedReason = *r.revokedReason
	}
	s.Proof.Hash, s.MailCode.Hash = string(r.proof), string(r.mailCode)
	if r.proofExpires != nil {
		s.Proof.ExpiresAt = *r.proofExpires
	}
	if r.mailCodeExpires != nil {
		s.MailCode.ExpiresAt = *r.mailCodeExpires
	}
	return s
}

func queueSession(batch *pgx.Batch, s account.Session) {
	const query = `
		INSERT INTO sessions (id, account_id, generation, rotated_at, device_name, user_agent, ip, network,
			created_at, last_used_at, expires_at, ends_at, authenticated_at, proved, methods)
		VALUES (@id, @account_id, @generation, @rotated_at, @device_name, @user_agent, @ip, @network,
			@created_at, @last_used_at, @expires_at, @ends_at, @authenticated_at, @proved, @methods)`
	batch.Queue(query, pgx.StrictNamedArgs{
		"id": s.ID, "account_id": s.AccountID, "generation": s.Generation, "rotated_at": s.RotatedAt,
		"device_name": s.DeviceName, "user_agent": s.UserAgent, "ip": s.IP, "network": s.Network,
		"created_at": s.CreatedAt, "last_used_at": s.LastUsedAt, "expires_at": s.ExpiresAt, "ends_at": s.EndsAt,
		"authenticated_at": s.AuthenticatedAt, "proved": s.Proved, "methods": s.Methods,
	})
}

func scanSession(found pgx.CollectableRow) (account.Session, error) {
	var row sessionRow
	err := found.Scan(row.targets()...)
	return row.session(), err
}

// queueSessionChange stores the changes to a session. If it was revoked, the verifiers
// of all processes learn of it.
func queueSessionChange(batch *pgx.Batch, before, after account.Session) {
	const write = `
		UPDATE sessions
		SET generation = @generation, rotated_at = @rotated_at, user_agent = @user_agent, ip = @ip, network = @network,
			last_used_at = @last_used_at, expires_at = @expires_at, authenticated_at = @authenticated_at, proved = @proved,
			methods = @methods, proof_hash = @proof_hash, proof_expires_at = @proof_expires_at, mail_code_hash = @mail_code_hash,
			mail_code_attempts = @mail_code_attempts, mail_code_expires_at = @mail_code_expires_at,
			revoked_at = @revoked_at, revoked_reason = NULLIF(@revoked_reason, '')
		WHERE id = @id`
	if before == after {
		return
	}
	args := pgx.StrictNamedArgs{
		"id": after.ID, "generation": after.Generation, "rotated_at": after.RotatedAt,
		"user_agent": after.UserAgent, "ip": after.IP, "network": after.Network,
		"last_used_at": after.LastUsedAt, "expires_at": after.ExpiresAt,
		"authenticated_at": after.AuthenticatedAt, "proved": after.Proved,
		"methods": after.Methods, "proof_hash": nullHash(after.Proof.Hash), "proof_expires_at": nullTime(after.Proof.ExpiresAt),
		"mail_code_hash": nullHash(after.MailCode.Hash), "mail_code_attempts": after.MailCode.Attempts,
		"mail_code_expires_at": nullTime(after.MailCode.ExpiresAt),
		"revoked_at":           nil, "revoked_reason": after.RevokedReason,
	}
	if after.Revoked() {
		args["revoked_at"] = after.RevokedAt
	}
	batch.Queue(write, args)
	if after.Revoked() && !before.Revoked() {
		queueRevocation(batch, after)
	}
}

// nullHash returns nil for an empty hash, which is stored as NULL.
func nullHash(hash string) []byte {
	if hash == "" {
		return nil
	}
	return []byte(hash)
}

// StartSession implements account.Store.
func (s *Store) StartSession(ctx context.Context, session account.Session, in account.PasswordLogin) error {
	err := s.signIn(ctx, in, func(q postgres.Querier, batch *pgx.Batch) error {
		queueSession(batch, session)
		return s.endOldest(ctx, q, batch, session)
	})
	if err != nil {
		return fmt.Errorf("start session: %w", err)
	}
	return nil
}

// signIn stores a login if the account is still the same as when the password was
// checked: in between it may have been disabled or demoted, or got a second factor. It
// fails with ErrAccountChanged.
func (s *Store) signIn(ctx context.Context, in account.PasswordLogin, queue func(postgres.Querier, *pgx.Batch) error) error {
	// The lock excludes concurrent changes of the account. Logins do not wait for each
	// other, unless they replace the hash or cancel a deletion.
	const lock = `
		SELECT ` + accountColumns + `
		FROM accounts a
		WHERE a.id = $1
		FOR SHARE`
	const lockExclusively = `
		SELECT ` + accountColumns + `
		FROM accounts a
		WHERE a.id = $1
		FOR NO KEY UPDATE`
	const rehash = `
		UPDATE accounts
		SET password_hash = $2
		WHERE id = $1`
	const restore = `
		UPDATE accounts
		SET delete_at = NULL, updated_at = $2
		WHERE id = $1`
	query := lock
	if in.NewHash != "" || in.Restores {
		query = lockExclusively
	}
	read := &pgx.Batch{}
	var current account.Account
	read.Queue(query, in.Owner.ID).QueryRow(func(row pgx.Row) error { return row.Scan(scanAccount(&current)...) })
	isNew := false
	if d := in.IfNewDevice; d != nil {
		read.Queue(newDevice, in.Owner.ID, d.Network, s.time(), d.UserAgent).QueryRow(func(row pgx.Row) error { return row.Scan(&isNew) })
	}
	err := postgres.Decide(ctx, s.db, read, func(q postgres.Querier, write *pgx.Batch) error {
		if current != in.Owner {
			return account.ErrAccountChanged
		}
		if in.NewHash != "" {
			write.Queue(rehash, in.Owner.ID, in.NewHash)
		}
		if in.Restores {
			write.Queue(restore, in.Owner.ID, s.time())
		}
		if err := queue(q, write); err != nil {
			return err
		}
		queueClearAttempts(write, in.Attempts)
		if isNew {
			return s.box.Queue(write, append(slices.Clip(in.Events), in.IfNewDevice.Event)...)
		}
		return s.box.Queue(write, in.Events...)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return account.ErrAccountChanged // It was deleted.
	}
	return err
}

// newDevice says whether the account $1 has had sessions, but at $3 none of the owner in the
// network $2, or none with the user agent $4, whose numbers are ignored. The first sessions
// after a reset by mail are not new in the network of the reset. See account.NewDevice.
const newDevice = `
	SELECT count(*) > 0 AND NOT (COALESCE(bool_or(s.network = $2 AND ` + sessionOfOwner + `), false)
		AND COALESCE(bool_or(regexp_replace(s.user_agent, '[0-9.]+', '', 'g') = regexp_replace($4, '[0-9.]+', '', 'g') AND ` + sessionOfOwner + `), false))
		AND NOT COALESCE(bool_or(EXISTS (
			SELECT FROM known_networks n
			WHERE n.account_id = a.id AND n.network = $2 AND n.known_at >= a.password_changed_at)), false)
	FROM accounts a JOIN sessions s ON s.account_id = a.id
	WHERE a.id = $1`

// lockSurplus locks and reads the oldest sessions of an account, all but the newest $3.
const lockSurplus = `
	SELECT ` + sessionColumns + `
	FROM sessions s
	WHERE ` + liveSession + ` AND s.id IN (
		SELECT s.id
		FROM sessions s
		WHERE s.account_id = $1 AND ` + liveSession + ` AND s.expires_at > $2
		ORDER BY s.id DESC
		OFFSET $3)
	ORDER BY s.id
	FOR UPDATE OF s`

// endOldest ends the oldest sessions of an account that gets one more than Limits.Sessions.
// Sign-ins that are stored at the same time can exceed the limit until the next one.
func (s *Store) endOldest(ctx context.Context, q postgres.Querier, write *pgx.Batch, next account.Session) error {
	if s.Limits.Sessions == 0 {
		return nil
	}
	now := s.time()
	rows, err := q.Query(ctx, lockSurplus, next.AccountID, now, s.Limits.Sessions-1)
	if err != nil {
		return fmt.Errorf("find oldest sessions: %w", err)
	}
	oldest, err := pgx.CollectRows(rows, scanSession)
	if err != nil {
		return fmt.Errorf("find oldest sessions: %w", err)
	}
	for _, before := range oldest {
		ended := before
		revoked := ended.EndAsOldest(ctx, now)
		queueSessionChange(write, before, ended)
		if err := s.box.Queue(write, revoked); err != nil {
			return err
		}
	}
	return nil
}

// UpdateSession implements account.Store.
func (s *Store) UpdateSession(ctx context.Context, id string, decide func(*account.SessionChange) error) error {
	const read = `
		SELECT ` + sessionColumns + `, ` + accountColumns + `
		FROM sessions s JOIN accounts a ON a.id = s.account_id
		WHERE s.id = $1
		FOR UPDATE OF s`
	var row sessionRow
	var c account.SessionChange
	batch := &pgx.Batch{}
	batch.Queue(read, id).QueryRow(func(found pgx.Row) error {
		return found.Scan(append(row.targets(), scanAccount(&c.Owner)...)...)
	})
	err := postgres.Decide(ctx, s.db, batch, func(q postgres.Querier, write *pgx.Batch) error {
		before := row.session()
		c = account.SessionChange{Owner: c.Owner, Session: before, AllowMail: s.allowMail(q, c.Owner.ID)}
		if err := decide(&c); err != nil {
			return err
		}
		queueSessionChange(write, before, c.Session)
		return s.box.Queue(write, c.Events...)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return account.ErrSessionNotFound
	}
	if err != nil {
		return fmt.Errorf("update session: %w", err)
	}
	return nil
}

// Sessions implements account.Store.
func (s *Store) Sessions(ctx context.Context, accountID string, now time.Time, after cursor.Position, limit int) ([]account.Session, error) {
	const query = `
		SELECT ` + sessionColumns + `
		FROM sessions s
		WHERE s.account_id = $1 AND ` + liveSession + ` AND s.expires_at > $2 AND (s.created_at, s.id) < ($3, $4)
		ORDER BY s.created_at DESC, s.id DESC
		LIMIT $5`
	created, id := after.Bound()
	rows, err := s.db.Query(ctx, query, accountID, now, created, id, limit)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	sessions, err := pgx.CollectRows(rows, scanSession)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	return sessions, nil
}
