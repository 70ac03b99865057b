package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// PersonalData implements account.Store. It leaves out what belongs to an address rather than to
// an account, and is found by its hash alone: counts of failed sign-ins and of mails.
func (s *Store) PersonalData(ctx context.Context, id string) (json.RawMessage, error) {
	const query = `
		SELECT json_build_object(
			'account', json_build_object(
				'id', a.id, 'email', a.email, 'emailVerified', a.email_verified, 'name', a.name, 'role', a.role, 'status', a.status,
				'hasPassword', a.password_hash <> '', 'passwordChangedAt', a.password_changed_at, 'mfaEnabled', a.mfa_enabled,
				'createdAt', a.created_at, 'updatedAt', a.updated_at, 'deleteAt', a.delete_at),
			'sessions', (SELECT coalesce(json_agg(json_build_object(
				'id', s.id, 'deviceName', s.device_name, 'userAgent', s.user_agent, 'ip', s.ip, 'network', s.network,
				'methods', s.methods, 'createdAt', s.created_at, 'lastUsedAt', s.last_used_at, 'expiresAt', s.expires_at,
				'revokedAt', s.revoked_at, 'revokedReason', s.revoked_reason) ORDER BY s.created_at DESC), '[]')
				FROM sessions s WHERE s.account_id = a.id),
			'factors', (SELECT coalesce(json_agg(json_build_object(
				'id', f.id, 'kind', f.kind, 'name', f.name, 'createdAt', f.created_at, 'confirmedAt', f.confirmed_at,
				'lastUsedAt', f.last_used_at) ORDER BY f.created_at), '[]')
				FROM factors f WHERE f.account_id = a.id),
			'recoveryCodesLeft', (SELECT count(*) FROM recovery_codes c WHERE c.account_id = a.id),
			'links', (SELECT coalesce(json_agg(json_build_object(
				'purpose', t.purpose, 'email', t.email, 'createdAt', t.created_at, 'expiresAt', t.expires_at) ORDER BY t.created_at DESC), '[]')
				FROM one_time_tokens t WHERE t.account_id = a.id),
			'signInsInProgress', (SELECT coalesce(json_agg(json_build_object(
				'deviceName', c.device_name, 'attempts', c.attempts, 'expiresAt', c.expires_at) ORDER BY c.expires_at), '[]')
				FROM challenges c WHERE c.account_id = a.id),
			'knownNetworks', (SELECT coalesce(json_agg(json_build_object(
				'network', n.network, 'knownAt', n.known_at) ORDER BY n.known_at DESC), '[]')
				FROM known_networks n WHERE n.account_id = a.id),
			'mailRequests', (SELECT coalesce(json_agg(json_build_object(
				'purpose', m.purpose, 'email', m.email, 'name', m.name, 'origin', m.origin, 'acceptedAt', m.accepted_at) ORDER BY m.accepted_at), '[]')
				FROM mail_requests m WHERE m.email_key = a.email_key))
		FROM accounts a
		WHERE a.id = $1`
	var data json.RawMessage
	err := s.db.QueryRow(ctx, query, id).Scan(&data)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, account.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read everything about an account: %w", err)
	}
	return data, nil
}
