package store

import (
	"context"
	"encoding/json"
	"fmt"
)

// PersonalData returns everything about the mails to a user, as a JSON object. Their text is not
// stored.
func (s *Store) PersonalData(ctx context.Context, userID string) (json.RawMessage, error) {
	const query = `
		SELECT json_build_object('messages', coalesce(json_agg(json_build_object(
			'id', id, 'eventId', event_id, 'template', template, 'to', recipient, 'messageId', message_id, 'status', status,
			'attempts', attempts, 'lastError', last_error, 'createdAt', created_at, 'updatedAt', updated_at, 'sentAt', sent_at,
			'nextAttemptAt', next_attempt_at) ORDER BY id DESC), '[]'))
		FROM messages
		WHERE user_id = $1`
	var data json.RawMessage
	if err := s.db.QueryRow(ctx, query, userID).Scan(&data); err != nil {
		return nil, fmt.Errorf("read everything about a user's mails: %w", err)
	}
	return data, nil
}
