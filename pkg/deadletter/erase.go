package deadletter

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/postgres"
)

// eraseContent removes what a dead letter says about its event, so that it cannot be
// replayed. What proves that the event was consumed stays. The subject is searched in the
// bytes: a payload need not be valid JSON, and may have been cut.
const eraseContent = `
	UPDATE dead_letters
	SET payload = '', metadata = '{}', attempts = '[]', reason = 'erased',
		status = CASE WHEN status IN ('open', 'replaying') THEN 'discarded' ELSE status END,
		replay_due = NULL, closed_at = coalesce(closed_at, now()),
		note = CASE WHEN status IN ('open', 'replaying') THEN 'the subject was erased' ELSE note END
	WHERE payload <> '' AND position(convert_to(@member, 'UTF8') IN payload) > 0`

// Erase removes the content of all dead letters whose event has the subject, and of those
// that are stored later: an event that was retried while its subject was erased must not
// bring the data back. It may be called again.
func (s *Store) Erase(ctx context.Context, subject string) error {
	const remember = `
		INSERT INTO dead_letters_erased (subject)
		VALUES ($1)
		ON CONFLICT (subject) DO NOTHING`
	if subject == "" {
		return nil
	}
	// Two transactions: a dead letter that does not see the first one is seen by the second.
	if _, err := s.db.Exec(ctx, remember, subject); err != nil {
		return fmt.Errorf("remember erased subject: %w", err)
	}
	return s.eraseSubject(ctx, subject)
}

func (s *Store) eraseSubject(ctx context.Context, subject string) error {
	member, err := json.Marshal(subject)
	if err != nil {
		return fmt.Errorf("encode subject: %w", err)
	}
	if _, err := s.db.Exec(ctx, eraseContent, pgx.StrictNamedArgs{"member": `"subject":` + string(member)}); err != nil {
		return fmt.Errorf("erase dead letters: %w", err)
	}
	return nil
}

// eraseIfErased erases a dead letter that was stored after its subject was erased.
func (s *Store) eraseIfErased(ctx context.Context, payload []byte) error {
	const query = `SELECT EXISTS (SELECT FROM dead_letters_erased WHERE subject = $1)`
	var e struct {
		Subject string `json:"subject"`
	}
	_ = json.Unmarshal(payload, &e) // A payload that cannot be decoded has no subject.
	if e.Subject == "" || text(e.Subject) != e.Subject {
		return nil
	}
	var erased bool
	if err := s.db.QueryRow(ctx, query, e.Subject).Scan(&erased); err != nil {
		return fmt.Errorf("read erased subjects: %w", err)
	}
	if !erased {
		return nil
	}
	return s.eraseSubject(ctx, e.Subject)
}

// Remains counts the dead letters that have the content of an event of a subject.
func Remains(ctx context.Context, db *postgres.Pool, subject string) (int, error) {
	const query = `
		SELECT count(*)
		FROM dead_letters
		WHERE payload <> '' AND position(convert_to(@member, 'UTF8') IN payload) > 0`
	member, err := json.Marshal(subject)
	if err != nil {
		return 0, fmt.Errorf("encode subject: %w", err)
	}
	var n int
	if err := db.QueryRow(ctx, query, pgx.StrictNamedArgs{"member": `"subject":` + string(member)}).Scan(&n); err != nil {
		return 0, fmt.Errorf("count dead letters of a subject: %w", err)
	}
	return n, nil
}
