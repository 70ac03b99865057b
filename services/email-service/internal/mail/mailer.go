package mail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/mail"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/event"
)

// Mailer sends the mails that events call for. It is safe for concurrent use.
type Mailer struct {
	store      Store
	sender     Sender
	sealer     *event.Sealer
	baseURL    string
	brand      string
	domain     string // of Message-IDs
	slots      chan struct{}
	retryFirst time.Duration
	now        func() time.Time
	report     *report
	hint       func(ctx context.Context, at time.Time, subject string, p event.Payload)
}

// Config is what a Mailer is made of.
type Config struct {
	Store       Store
	Sender      Sender
	Sealer      *event.Sealer
	Brand       string        // the name of the product, at the top of every mail
	BaseURL     string        // of links, with or without a slash at the end
	From        string        // the sender; Message-IDs get its domain
	Concurrency int           // mails being sent at a time
	RetryFirst  time.Duration // delay before the second attempt of a deferred mail; later delays grow from it
	Now         func() time.Time
	Log         *slog.Logger
	Metrics     prometheus.Registerer

	// Hint tells the browsers of a user that a mail was sent. It may be nil.
	Hint func(ctx context.Context, at time.Time, subject string, p event.Payload)
}

// NewMailer returns a mailer. It fails if the sender's address is invalid.
func NewMailer(cfg Config) (*Mailer, error) {
	from, err := ParseSender(cfg.From)
	if err != nil {
		return nil, fmt.Errorf("read the sender's address: %w", err)
	}
	return &Mailer{
		store: cfg.Store, sender: cfg.Sender, sealer: cfg.Sealer,
		brand:      cfg.Brand,
		baseURL:    strings.TrimRight(cfg.BaseURL, "/"),
		domain:     DomainOf(from),
		slots:      make(chan struct{}, cfg.Concurrency),
		retryFirst: cfg.RetryFirst,
		now:        cfg.Now,
		report:     newReport(cfg.Log, cfg.Metrics, cfg.Now),
		hint:       cfg.Hint,
	}, nil
}

// Mail sends the mail that e calls for, once. It returns nil for a deferred mail, whose
// next attempt is scheduled. It fails with ErrMalformed if e is not a valid event of
// Events, with ErrSeal if the link cannot be opened, and with ErrExpired,
// PermanentlyRejectedError, ErrServerUnavailable, ErrDatabaseUnchecked or ErrLocked.
func (m *Mailer) Mail(ctx context.Context, e event.Event) error {
	k, ok := kinds[e.Name]
	if !ok {
		return fmt.Errorf("%w: there is no mail for %s", event.ErrMalformed, e.Name)
	}
	if !event.HasLink(e.Name) {
		return m.sendNotice(ctx, e, k.templates)
	}
	return m.sendLink(ctx, e, k)
}

// sendLink sends a mail with a link, or with a code.
func (m *Mailer) sendLink(ctx context.Context, e event.Event, k kind) error {
	link, err := event.DecodeLink(e)
	if err != nil {
		return err
	}
	token, err := m.sealer.Open(link.Token, event.LinkContext(k.event, e.Subject))
	if err != nil {
		return fmt.Errorf("open the token: %w", err)
	}
	c := content{
		Button:  k.button,
		Until:   link.ExpiresAt.UTC().Format(timeFormat),
		At:      e.OccurredAt.UTC().Format(timeFormat),
		IP:      e.IP,
		expires: link.ExpiresAt,
	}
	if k.path == "" {
		c.Code = token
	} else {
		c.Link = m.baseURL + k.path + "?token=" + url.QueryEscape(token)
	}
	return m.send(ctx, e, recipient(link.Email), k.templates, c)
}

// sendNotice sends a mail without a link.
func (m *Mailer) sendNotice(ctx context.Context, e event.Event, t *templates) error {
	var data struct {
		Email  string `json:"email"`
		Method string `json:"method"`
		Kind   string `json:"kind"`

		PasskeysRemoved int `json:"passkeysRemoved"`
		PasskeysLeft    int `json:"passkeysLeft"`

		Left     int    `json:"left"`
		Failures int    `json:"failures"`
		After    string `json:"after"`

		DeleteAt time.Time `json:"deleteAt"`
	}
	if err := json.Unmarshal(e.Data, &data); err != nil {
		return fmt.Errorf("%w: %s: %w", event.ErrMalformed, e.Name, err)
	}
	c := content{
		At: e.OccurredAt.UTC().Format(timeFormat), IP: e.IP, Method: data.Method,
		Kind: data.Kind, Factor: factor(data.Kind), ByAdmin: byAdmin(e),
		PasskeysRemoved: data.PasskeysRemoved, PasskeysLeft: data.PasskeysLeft,
		Left: data.Left, Failures: data.Failures, Role: roles[data.After],
		Until: data.DeleteAt.UTC().Format(timeFormat),
	}
	if c.ByAdmin {
		c.IP = "" // It is the administrator's address, which is not for the owner.
	}
	return m.send(ctx, e, recipient(data.Email), t, c)
}

// byAdmin says whether an administrator caused e: nobody else can act on the account of
// another user.
func byAdmin(e event.Event) bool { return e.Actor.ID != "" && e.Actor.ID != e.Subject }

const timeFormat = "2 January 2006, 15:04 MST"

// Deleted erases the addresses of a deleted account and suppresses the mails that were
// not sent yet.
func (m *Mailer) Deleted(ctx context.Context, e event.Event) error {
	if e.Subject == "" {
		return fmt.Errorf("%w: %s has no subject", event.ErrMalformed, e.Name)
	}
	return m.store.Erase(ctx, e.Subject, m.now().UTC())
}

// recipient is the address that a mail goes to.
type recipient string

// send sends the mail that e calls for, once.
func (m *Mailer) send(ctx context.Context, e event.Event, to recipient, t *templates, c content) error {
	delivery, err := m.queue(ctx, e, to, t)
	if errors.Is(err, ErrAccountDeleted) {
		return nil
	}
	if err != nil || waits[delivery.Status] {
		return err
	}
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return fmt.Errorf("wait for a free connection: %w", ctx.Err())
	}
	now := m.now().UTC()
	if !c.expires.IsZero() && !now.Before(c.expires) {
		return m.recordFailure(ctx, e, delivery, ErrExpired)
	}
	c.Product = m.brand
	message, err := t.render(delivery, c)
	if err != nil {
		return err
	}
	message.Date = now
	accepted := false
	err = m.store.Send(ctx, delivery.ID,
		func(ctx context.Context) error {
			err := m.sender.Send(ctx, message)
			if err == nil {
				accepted = true
				m.report.sent(ctx, delivery)
			}
			return err
		},
		func(sent Delivery) event.Event {
			return event.New(ctx, m.now(), e.Subject, event.EmailSent{MessageID: sent.MessageID, Template: t.name, To: Mask(delivery.To)})
		})
	if err == nil && accepted && m.hint != nil {
		m.hint(ctx, m.now(), e.Subject, event.EmailSent{MessageID: delivery.MessageID, Template: t.name})
	}
	switch {
	case err == nil, errors.Is(err, ErrNotRecorded), errors.Is(err, ErrDatabaseUnchecked), errors.Is(err, ErrLocked):
		return err
	case errors.Is(err, ErrWithheld):
		_, err := m.queue(ctx, e, to, t) // The event is kept until the mail is resumed.
		return err
	}
	return m.recordFailure(ctx, e, delivery, err)
}

// waits are the states of deliveries that need nothing now. A deferred mail is sent when
// its next attempt is due, a withheld one after an operator has resumed it.
var waits = map[string]bool{StatusSent: true, StatusDeferred: true, StatusSuppressed: true, StatusWithheld: true}

// queue returns the delivery of e, which it stores if there is none yet.
func (m *Mailer) queue(ctx context.Context, e event.Event, to recipient, t *templates) (Delivery, error) {
	if !to.valid() {
		return Delivery{}, fmt.Errorf("%w: the recipient is not a plain address", event.ErrMalformed)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Delivery{}, fmt.Errorf("make delivery id: %w", err)
	}
	now := m.now().UTC()
	return m.store.Queue(ctx, Delivery{
		ID: id.String(), EventID: e.ID, Template: t.name, UserID: e.Subject, To: string(to),
		MessageID: e.ID + "@" + m.domain, RequestID: e.RequestID,
		Status: StatusQueued, CreatedAt: now, UpdatedAt: now,
	}, e)
}

// valid says whether r is exactly one address, so that it cannot add a line to the
// header or a command to the SMTP session.
func (r recipient) valid() bool {
	address := string(r)
	parsed, err := mail.ParseAddress(address)
	return err == nil && parsed.Address == address &&
		!strings.ContainsFunc(address, func(c rune) bool { return c == ' ' || !unicode.IsPrint(c) })
}

// recordFailure stores why an attempt failed. It returns nil if the next attempt is
// scheduled, and the reason otherwise.
func (m *Mailer) recordFailure(ctx context.Context, e event.Event, d Delivery, reason error) error {
	// The context of the attempt may have expired; the record still has to be written.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	_, deferred := errors.AsType[*DeferredError](reason)
	if deferred && m.now().Sub(d.RetriedSince) > retryWindow {
		deferred, reason = false, &PermanentlyRejectedError{Err: fmt.Errorf("not accepted within %s: %w", retryWindow, reason)}
	}
	_, rejected := errors.AsType[*PermanentlyRejectedError](reason)
	var err error
	switch {
	case deferred:
		next := m.nextAttempt(d.Attempts)
		err = m.store.Defer(ctx, d.ID, Deferral{Reason: reason.Error(), Next: next, Source: e}, event.New(ctx, m.now(), d.UserID, event.EmailDeferred{
			MessageID: d.MessageID, Template: d.Template, To: Mask(d.To), Reason: reason.Error(), NextAttemptAt: next,
		}))
		if err == nil {
			m.report.deferred(ctx, d, next, reason)
			return nil
		}
	case rejected, errors.Is(reason, ErrExpired):
		err = m.store.Fail(ctx, d.ID, reason.Error(), event.New(ctx, m.now(), d.UserID, event.EmailFailed{
			MessageID: d.MessageID, Template: d.Template, To: Mask(d.To), Reason: reason.Error(),
		}))
		if err == nil {
			m.report.failed(ctx, d, reason)
		}
	default:
		err = m.store.Release(ctx, d.ID, reason.Error())
	}
	return errors.Join(reason, err)
}

const (
	recordTimeout = 5 * time.Second
	// retryWindow is how long a deferred mail is retried before it fails.
	retryWindow = 48 * time.Hour
)

// nextAttempt returns the time of the next attempt after a number of earlier ones: in 1,
// 5 and 15 minutes, 1 hour, and then every 4 hours, if the first delay is a minute. Up to
// a tenth is added at random, so that mails that were deferred together do not come back
// together.
func (m *Mailer) nextAttempt(attempts int) time.Time {
	factors := [...]int64{1, 5, 15, 60, 240}
	delay := time.Duration(int64(m.retryFirst) * factors[min(attempts, len(factors)-1)])
	return m.now().UTC().Add(delay + rand.N(delay/10+1)) //nolint:gosec // Jitter is not a secret.
}
