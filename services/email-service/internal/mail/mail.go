// Package mail is what email-service is about: which mail a fact calls for, how
// it reads, and that it is sent once. It knows no HTTP, no SQL and no broker.
package mail

import (
	"context"
	"errors"
	"fmt"
	"net/mail"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
)

// The states of a message.
const (
	Queued     = "queued"
	Sending    = "sending"
	Sent       = "sent"
	Deferred   = "deferred" // an attempt failed, another may follow
	Failed     = "failed"
	Suppressed = "suppressed"
)

// Message is a mail that is to be sent, or was. What it says is rendered when it
// is sent and kept nowhere: links are live secrets.
type Message struct {
	ID        string
	EventID   string
	Template  string
	UserID    string
	To        string
	MessageID string // of RFC 5322, without angle brackets
	RequestID string
	Status    string
	Attempts  int
	LastError string
	CreatedAt time.Time
	UpdatedAt time.Time
	SentAt    time.Time // zero until it is sent
}

// Letter is a message as it goes to the mail server.
type Letter struct {
	Message
	Subject    string
	Text, HTML string
	Date       time.Time
}

// Store keeps messages.
type Store interface {
	// Queue stores m unless its event has made one already, and returns the one
	// that is stored.
	Queue(ctx context.Context, m Message) (Message, error)
	// Send locks the message and, unless it was sent, calls send and stores that
	// it was sent, with the event. Whoever comes while it is locked waits. The
	// lock ends with the process, so nobody has to wait for a lease of the dead.
	// A message that failed may be sent after all: an operator can replay its event.
	Send(ctx context.Context, id string, send func(context.Context) error, sent func(m Message) event.Event) error
	// Fail stores that an attempt failed, for good if status is Failed, with the
	// events. It does nothing if the message was sent or has that status already.
	Fail(ctx context.Context, id, status, reason string, events ...event.Event) error
}

// Sender hands letters to a mail server. It returns a Rejected for a letter that
// the server will never take.
type Sender interface {
	Send(ctx context.Context, letter Letter) error
}

// Rejected says that the mail server will not take a letter, ever.
//
//nolint:errname // It reads as mail.Rejected.
type Rejected struct{ Err error }

func (r *Rejected) Error() string { return "rejected: " + r.Err.Error() }

// Unwrap returns what the server said.
func (r *Rejected) Unwrap() error { return r.Err }

// Mailer turns facts into mails. It is safe for concurrent use.
type Mailer struct {
	store   Store
	sender  Sender
	sealer  *event.Sealer
	baseURL string
	domain  string // of Message-IDs
	slots   chan struct{}
	now     func() time.Time
}

// Config is what a Mailer is made of.
type Config struct {
	Store       Store
	Sender      Sender
	Sealer      *event.Sealer
	BaseURL     string // of links, without a slash at the end
	From        string // whose domain Message-IDs get
	Concurrency int    // mails being sent at a time
	Now         func() time.Time
}

// NewMailer returns a mailer.
func NewMailer(cfg Config) (*Mailer, error) {
	from, err := mail.ParseAddress(cfg.From)
	if err != nil {
		return nil, fmt.Errorf("read the sender's address: %w", err)
	}
	return &Mailer{
		store: cfg.Store, sender: cfg.Sender, sealer: cfg.Sealer,
		baseURL: strings.TrimRight(cfg.BaseURL, "/"),
		domain:  from.Address[strings.LastIndex(from.Address, "@")+1:],
		slots:   make(chan struct{}, cfg.Concurrency),
		now:     cfg.Now,
	}, nil
}

// Verification sends the link that proves that an address is somebody's. It
// fails with a Rejected, with event.ErrMalformed, event.ErrSeal or ErrExpired,
// none of which another attempt would mend, or else with a fault that may pass.
func (m *Mailer) Verification(ctx context.Context, e event.Event) error {
	p, err := event.Decode[event.UserVerificationRequested](e)
	if err != nil {
		return err
	}
	token, err := m.sealer.Open(p.Token, event.VerificationContext(e.Subject))
	if err != nil {
		return fmt.Errorf("open the token: %w", err)
	}
	return m.send(ctx, e, p.Email, verification, content{
		Link:    m.baseURL + "/api/v1/auth/verify-email?token=" + url.QueryEscape(token),
		Until:   p.ExpiresAt.UTC().Format("2 January 2006, 15:04") + " UTC",
		expires: p.ExpiresAt,
	})
}

// ErrExpired says that a link was dead before its mail could be sent.
var ErrExpired = errors.New("the link has expired")

// Reuse warns the owner of a session whose refresh token came back. It fails as
// Verification does.
func (m *Mailer) Reuse(ctx context.Context, e event.Event) error {
	p, err := event.Decode[event.SessionRefreshReused](e)
	if err != nil {
		return err
	}
	return m.send(ctx, e, p.Email, reuse, content{
		At: e.OccurredAt.UTC().Format("2 January 2006, 15:04") + " UTC", IP: e.IP,
	})
}

// send sends the mail that e calls for, once.
func (m *Mailer) send(ctx context.Context, e event.Event, to string, t *templates, c content) error {
	if !plain(to) {
		return fmt.Errorf("%w: recipient is no plain address", event.ErrMalformed)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make message id: %w", err)
	}
	now := m.now().UTC()
	queued, err := m.store.Queue(ctx, Message{
		ID: id.String(), EventID: e.ID, Template: t.name, UserID: e.Subject, To: to,
		MessageID: e.ID + "@" + m.domain, RequestID: e.RequestID,
		Status: Queued, CreatedAt: now, UpdatedAt: now,
	})
	if err != nil || queued.Status == Sent {
		return err
	}
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return fmt.Errorf("wait for a free connection: %w", ctx.Err())
	}
	now = m.now().UTC()
	if !c.expires.IsZero() && !now.Before(c.expires) {
		return m.failed(ctx, queued, ErrExpired)
	}
	letter, err := t.render(queued, c)
	if err != nil {
		return err
	}
	letter.Date = now
	err = m.store.Send(ctx, queued.ID,
		func(ctx context.Context) error { return m.sender.Send(ctx, letter) },
		func(sent Message) event.Event {
			return event.New(ctx, m.now(), e.Subject, event.EmailSent{MessageID: sent.MessageID, Template: t.name, To: Mask(to)})
		})
	if err != nil {
		return m.failed(ctx, queued, err)
	}
	return nil
}

// plain says whether address is one address and nothing else, so that it cannot
// add a line to the header or a command to the dialogue.
func plain(address string) bool {
	parsed, err := mail.ParseAddress(address)
	return err == nil && parsed.Address == address &&
		!strings.ContainsFunc(address, func(c rune) bool { return c == ' ' || !unicode.IsPrint(c) })
}

// failed notes why an attempt failed and returns that reason.
func (m *Mailer) failed(ctx context.Context, message Message, reason error) error {
	// The attempt's own context may have run out; the note is worth a moment more.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer cancel()
	status, events := Deferred, []event.Event(nil)
	if _, rejected := errors.AsType[*Rejected](reason); rejected || errors.Is(reason, ErrExpired) {
		status = Failed
		events = append(events, event.New(ctx, m.now(), message.UserID, event.EmailFailed{
			MessageID: message.MessageID, Template: message.Template, To: Mask(message.To), Reason: reason.Error(),
		}))
	}
	if err := m.store.Fail(ctx, message.ID, status, reason.Error(), events...); err != nil {
		return errors.Join(reason, err)
	}
	return reason
}

const noteTimeout = 5 * time.Second

// Mask hides most of an address, for logs and events: b***@example.com.
func Mask(address string) string {
	local, domain, ok := strings.Cut(address, "@")
	if !ok || local == "" {
		return "***"
	}
	_, first := utf8.DecodeRuneInString(local)
	return local[:first] + "***@" + domain
}
