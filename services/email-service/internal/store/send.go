package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/services/email-service/internal/mail"
)

// commitTimeout bounds what follows the mail server's answer.
const commitTimeout = 15 * time.Second

// Send implements mail.Store.
//
// If this process dies between the mail server's answer and the commit, the message is
// sent again: SMTP cannot close that gap, so it is kept short. The commit does not wait
// for the disk. That is safe if this process dies. If Postgres crashes at that moment,
// or the commit fails, this process still remembers the mail; only if both die at once is
// it sent again.
//
// The time of the event, and that of sent_at, is that of the attempt: both are written
// before the mail server answers.
func (s *Store) Send(ctx context.Context, id string, send func(context.Context) error, sent func(mail.Delivery) event.Event) error {
	begin := `UPDATE messages SET status = 'sending', attempts = attempts + 1, updated_at = $2
		WHERE id = $1 AND status NOT IN ('sent', 'suppressed', 'withheld') AND (` + s.checked + `)`
	// A database that cannot store that a mail was sent gets no other mail to store.
	if err := s.recordSent(ctx, lockNow); err != nil {
		return err
	}
	var notBegun error
	batch := &pgx.Batch{}
	batch.Queue(postgres.LimitLockWait)
	batch.Queue(begin, id, s.now()).Exec(func(tag pgconn.CommandTag) error {
		notBegun = nil
		if tag.RowsAffected() == 0 {
			notBegun = mail.ErrDatabaseUnchecked
		}
		return nil
	})
	if err := s.db.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("start attempt: %w", locked(err))
	}
	return s.db.Again(func() error { return s.attempt(ctx, id, notBegun, send, sent) })
}

// attempt sends a message and stores that it did. It can be called again: what the mail server
// has accepted is remembered. If the message can still be sent, it fails with notBegun.
func (s *Store) attempt(ctx context.Context, id string, notBegun error, send func(context.Context) error, sent func(mail.Delivery) event.Event) error {
	tx, err := s.db.Begin(ctx) //nolint:forbidigo // Send repeats it; its commit may outlive ctx.
	if err != nil {
		return fmt.Errorf("start attempt: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // After a commit there is nothing to roll back.
	// The update has found no lock, so one that another transaction has taken since means that
	// it is sending the mail.
	d, err := lockDelivery(ctx, tx, id, lockNow)
	if err != nil {
		return locked(err)
	}
	switch d.Status {
	case mail.StatusSent, mail.StatusSuppressed:
		return nil
	case mail.StatusWithheld:
		return mail.ErrWithheld
	}
	if notBegun != nil {
		return notBegun
	}
	e := sent(d)
	eventID, isSent, err := s.sent.eventFor(d.MessageID)
	if err != nil {
		return err
	}
	e.ID = eventID
	if err := s.finish(ctx, tx, id, e); err != nil {
		return err
	}
	if !isSent {
		if err := send(ctx); err != nil {
			return err
		}
		s.sent.add(d.MessageID, eventID)
	}
	// The mail has been sent. A deadline must not keep that from being stored.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	if err := tx.Commit(ctx); err != nil {
		s.sent.notRecorded(id, e)
		return fmt.Errorf("%w: %w", mail.ErrNotRecorded, err)
	}
	_ = s.box.Wake(ctx, s.db) // If that fails, the relay finds the event a second later.
	return nil
}

// locked returns err, which is mail.ErrLocked if it says that a statement waited for a lock.
func locked(err error) error {
	if postgres.Contended(err) {
		return fmt.Errorf("%w: %w", mail.ErrLocked, err)
	}
	return err
}

// How a delivery is locked: after a wait, or only if it is not locked.
const (
	lock    = `FOR UPDATE`
	lockNow = `FOR UPDATE NOWAIT`
)

func lockDelivery(ctx context.Context, tx pgx.Tx, id, how string) (mail.Delivery, error) {
	d, err := one(tx.Query(ctx, `SELECT `+columns+` FROM messages WHERE id = $1 `+how, id))
	if err != nil {
		return d, fmt.Errorf("lock delivery: %w", err)
	}
	return d, nil
}

// finish stores within tx that the mail was sent. It wakes no relay.
func (s *Store) finish(ctx context.Context, tx pgx.Tx, id string, e event.Event) error {
	const finish = `UPDATE messages SET status = 'sent', last_error = '', sent_at = $2, updated_at = $2,
		event = NULL, next_attempt_at = NULL WHERE id = $1`
	batch := &pgx.Batch{}
	batch.Queue(`SELECT set_config('synchronous_commit', 'off', true)`)
	batch.Queue(finish, id, s.now())
	if err := s.box.QueueSilently(batch, e); err != nil {
		return err
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("store that the mail is sent: %w", err)
	}
	return nil
}

// recordSent records the mails that were sent and whose commits failed. It fails with
// ErrNotRecorded if the database is unavailable or ctx ends. A mail that cannot be recorded
// for another reason, such as a locked row, delays no other: it stays remembered, and its
// own message is handled again and reports the reason.
func (s *Store) recordSent(ctx context.Context, how string) error {
	if !s.sent.pending() {
		return nil
	}
	s.sent.recording.Lock()
	defer s.sent.recording.Unlock()
	for id, e := range s.sent.unrecordedMails() {
		err := s.db.Transact(ctx, func(tx pgx.Tx) error {
			d, err := lockDelivery(ctx, tx, id, how)
			if errors.Is(err, pgx.ErrNoRows) || err == nil && d.Status == mail.StatusSent {
				return nil // The commit succeeded after all, or the database is another one.
			}
			if err != nil {
				return err
			}
			return s.finish(ctx, tx, id, e)
		})
		if err == nil {
			s.sent.recorded(id)
			_ = s.box.Wake(ctx, s.db) // If that fails, the relay finds the event a second later.
		} else if ctx.Err() != nil || postgres.Unavailable(err) {
			return fmt.Errorf("%w: %w", mail.ErrNotRecorded, err)
		}
	}
	return nil
}

// Close records the mails that were sent and whose commits failed: the next process does
// not know of them. It fails with ErrNotRecorded if some are left. Send must not be running.
func (s *Store) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	err := s.recordSent(ctx, lock)
	left := len(s.sent.unrecordedMails())
	switch {
	case left == 0:
		return nil
	case err == nil:
		err = mail.ErrNotRecorded
	}
	return fmt.Errorf("mails not recorded: %d: %w", left, err)
}

// sentMails are the mails that the mail server has accepted from this process: the
// latest ones, and all that are not recorded. The zero value is empty.
type sentMails struct {
	recording sync.Mutex // locked while they are recorded

	mu         sync.Mutex
	latest     map[string]string // the id of the event that says it, by Message-ID
	earlier    map[string]string // replaced by latest when that is full
	unrecorded map[string]event.Event
}

// rememberedMails is how many mails are remembered at least: those of the last minute or
// so, whose commits may not have reached the disk.
const rememberedMails = 10_000

func (s *sentMails) add(messageID, eventID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest == nil || len(s.latest) >= rememberedMails {
		s.latest, s.earlier = map[string]string{}, s.latest
	}
	s.latest[messageID] = eventID
}

// eventFor returns the id of the event that says that a mail was sent: a new one, or the
// former one if it was. That event may have been published before the database was replaced.
func (s *sentMails) eventFor(messageID string) (eventID string, isSent bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, mails := range []map[string]string{s.latest, s.earlier} {
		if id, ok := mails[messageID]; ok {
			return id, true, nil
		}
	}
	id, err := uuid.NewV7()
	if err != nil {
		return "", false, fmt.Errorf("make event id: %w", err)
	}
	return id.String(), false, nil
}

func (s *sentMails) notRecorded(id string, e event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unrecorded == nil {
		s.unrecorded = map[string]event.Event{}
	}
	s.unrecorded[id] = e
}

func (s *sentMails) recorded(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.unrecorded, id)
}

func (s *sentMails) pending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.unrecorded) > 0
}

func (s *sentMails) unrecordedMails() map[string]event.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.unrecorded)
}
