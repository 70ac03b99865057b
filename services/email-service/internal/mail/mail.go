// Package mail is what email-service is about: which mail a fact calls for, how
// it reads, and that it is sent once. It knows no HTTP, no SQL and no broker.
package mail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
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
	Deferred   = "deferred" // the mail server put it off; another attempt is scheduled
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
	Attempts  int // that the mail server answered
	LastError string
	CreatedAt time.Time
	UpdatedAt time.Time
	SentAt    time.Time // zero until it is sent

	NextAttemptAt time.Time // zero unless one is scheduled
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
	// that is stored. It fails with ErrNobody if the user was erased.
	Queue(ctx context.Context, m Message) (Message, error)
	// Send locks the message and, unless it was sent, calls send and stores that
	// it was sent, with the event. Whoever comes while it is locked waits. The
	// lock ends with the process, so nobody has to wait for a lease of the dead.
	// A message that failed may be sent after all: an operator can replay its event.
	Send(ctx context.Context, id string, send func(context.Context) error, sent func(m Message) event.Event) error
	// Fail stores that the message will not be sent, with the event. It does
	// nothing if it was sent or has failed already.
	Fail(ctx context.Context, id, reason string, e event.Event) error
	// Defer schedules the next attempt and keeps what is needed for it, with the
	// event. It does nothing if the message was sent.
	Defer(ctx context.Context, id, reason string, next time.Time, source, e event.Event) error
	// Release stores that the attempt did not reach the mail server and does not
	// count.
	Release(ctx context.Context, id, reason string) error
	// Erase forgets to whom mails of a user went; those that were not sent yet
	// never are.
	Erase(ctx context.Context, userID string, at time.Time) error
}

// Sender hands letters to a mail server. It returns a Rejected for a letter that
// the server will never take, a PutOff for one that it may take later, and an
// ErrAway if the fault is not the letter's.
type Sender interface {
	Send(ctx context.Context, letter Letter) error
}

// ErrAway says that the mail server cannot be used at all: it is down, shutting
// down, refuses our name or our sender.
var ErrAway = errors.New("mail server cannot be used")

// PutOff says that the mail server did not take a letter now.
//
//nolint:errname // It reads as mail.PutOff.
type PutOff struct{ Err error }

func (p *PutOff) Error() string { return "put off: " + p.Err.Error() }

// Unwrap returns what the server said.
func (p *PutOff) Unwrap() error { return p.Err }

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
	retry   time.Duration
	now     func() time.Time
}

// Config is what a Mailer is made of.
type Config struct {
	Store       Store
	Sender      Sender
	Sealer      *event.Sealer
	BaseURL     string        // of links, without a slash at the end
	From        string        // whose domain Message-IDs get
	Concurrency int           // mails being sent at a time
	RetryFirst  time.Duration // before the second attempt of a mail that was put off; the pauses grow from there
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
		retry:   cfg.RetryFirst,
		now:     cfg.Now,
	}, nil
}

// Mail sends the mail that e calls for, once. It fails with ErrMalformed for what
// is no event of Events, with ErrSeal for a link that cannot be opened, and with
// ErrExpired, Rejected or ErrAway.
func (m *Mailer) Mail(ctx context.Context, e event.Event) error {
	kind, ok := kinds[e.Name]
	if !ok {
		return fmt.Errorf("%w: there is no mail for %s", event.ErrMalformed, e.Name)
	}
	if kind.path == "" {
		return m.notice(ctx, e, kind.templates)
	}
	link, err := event.DecodeLink(e)
	if err != nil {
		return err
	}
	token, err := m.sealer.Open(link.Token, e.Name+" "+e.Subject)
	if err != nil {
		return fmt.Errorf("open the token: %w", err)
	}
	return m.send(ctx, e, link.Email, kind.templates, content{
		Link:    m.baseURL + "/api/v1/auth" + kind.path + "?token=" + url.QueryEscape(token),
		Button:  kind.button,
		Until:   link.ExpiresAt.UTC().Format(timeFormat),
		At:      e.OccurredAt.UTC().Format(timeFormat),
		IP:      e.IP,
		expires: link.ExpiresAt,
	})
}

// notice sends a mail without a link.
func (m *Mailer) notice(ctx context.Context, e event.Event, t *templates) error {
	var about struct {
		Email  string `json:"email"`
		Method string `json:"method"`
		Kind   string `json:"kind"`
	}
	if err := json.Unmarshal(e.Data, &about); err != nil {
		return fmt.Errorf("%w: %s: %w", event.ErrMalformed, e.Name, err)
	}
	c := content{
		At: e.OccurredAt.UTC().Format(timeFormat), IP: e.IP, Method: about.Method,
		Kind: about.Kind, Factor: factor(about.Kind), ByAdmin: byAdmin(e),
	}
	if c.ByAdmin {
		c.IP = "" // It is not the owner's, and none of their business.
	}
	return m.send(ctx, e, about.Email, t, c)
}

// byAdmin says whether somebody else acted on the account of whom e speaks, which
// only administrators can.
func byAdmin(e event.Event) bool { return e.Actor.ID != "" && e.Actor.ID != e.Subject }

const timeFormat = "2 January 2006, 15:04 MST"

// ErrExpired says that a link was dead before its mail could be sent.
var ErrExpired = errors.New("the link has expired")

// ErrNobody says that a mail is for somebody whose account is gone.
var ErrNobody = errors.New("the account is gone")

// Deleted forgets the addresses of an account that is gone, and what was still
// to be sent to it.
func (m *Mailer) Deleted(ctx context.Context, e event.Event) error {
	if e.Subject == "" {
		return fmt.Errorf("%w: nobody was deleted", event.ErrMalformed)
	}
	return m.store.Erase(ctx, e.Subject, m.now().UTC())
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
	if errors.Is(err, ErrNobody) {
		return nil
	}
	if err != nil || queued.Status == Sent || queued.Status == Deferred || queued.Status == Suppressed {
		return err // What is deferred is sent when its time comes.
	}
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return fmt.Errorf("wait for a free connection: %w", ctx.Err())
	}
	now = m.now().UTC()
	if !c.expires.IsZero() && !now.Before(c.expires) {
		return m.failed(ctx, e, queued, ErrExpired)
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
		return m.failed(ctx, e, queued, err)
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

// failed notes why an attempt failed. It returns nil if another is scheduled, and
// else the reason.
func (m *Mailer) failed(ctx context.Context, e event.Event, message Message, reason error) error {
	// The attempt's own context may have run out; the note is worth a moment more.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer cancel()
	_, putOff := errors.AsType[*PutOff](reason)
	if putOff && m.now().Sub(message.CreatedAt) > patience {
		putOff, reason = false, &Rejected{Err: fmt.Errorf("no success in %s: %w", patience, reason)}
	}
	_, rejected := errors.AsType[*Rejected](reason)
	var err error
	switch {
	case putOff:
		next := m.next(message.Attempts)
		err = m.store.Defer(ctx, message.ID, reason.Error(), next, e, event.New(ctx, m.now(), message.UserID, event.EmailDeferred{
			MessageID: message.MessageID, Template: message.Template, To: Mask(message.To), Reason: reason.Error(), NextAttemptAt: next,
		}))
		if err == nil {
			return nil
		}
	case rejected, errors.Is(reason, ErrExpired):
		err = m.store.Fail(ctx, message.ID, reason.Error(), event.New(ctx, m.now(), message.UserID, event.EmailFailed{
			MessageID: message.MessageID, Template: message.Template, To: Mask(message.To), Reason: reason.Error(),
		}))
	default:
		err = m.store.Release(ctx, message.ID, reason.Error())
	}
	return errors.Join(reason, err)
}

// patience is how long a mail that is put off again and again is tried.
const patience = 48 * time.Hour

// next returns when to try again after a number of earlier attempts: in 1, 5, 15
// minutes, 1 hour, and then every 4 hours, if the first pause is a minute. A bit
// of chance keeps mails that were put off together from coming back together.
func (m *Mailer) next(attempts int) time.Time {
	factors := [...]int64{1, 5, 15, 60, 240}
	pause := time.Duration(int64(m.retry) * factors[min(attempts, len(factors)-1)])
	return m.now().UTC().Add(pause + rand.N(pause/10+1)) //nolint:gosec // Chance, not secrecy.
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
