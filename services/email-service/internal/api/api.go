// Package api has the HTTP routes of email-service and its event handlers.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/gorilla/mux"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/email-service/internal/mail"
	"github.com/headgate/headgate/services/email-service/internal/store"
)

// Prefix is where email-service's routes are.
const Prefix = "/api/v1/email"

// Routes returns the routes of email-service and who may call them.
func Routes(messages *store.Store) []web.Route {
	a := &api{messages: messages}
	return []web.Route{
		{Method: http.MethodGet, Path: Prefix + "/messages", Access: web.AdminOnly, Query: web.TakesPage("to", "template", "status", "requestId"), Handler: a.list},
		{Method: http.MethodGet, Path: Prefix + "/messages/{id}", Access: web.AdminOnly, Handler: a.get},
		web.Export(func(r *http.Request, userID string) (json.RawMessage, error) {
			return messages.PersonalData(r.Context(), userID)
		}),
	}
}

// Handlers returns the handler of each event.
func Handlers(mailer *mail.Mailer) map[string]bus.Handler {
	handlers := map[string]bus.Handler{event.UserDeleted{}.EventName(): mailer.Deleted}
	for _, name := range mail.Events() {
		handlers[name] = classified(mailer.Mail)
	}
	return handlers
}

// Unavailable says whether err means that Postgres or the mail server is unavailable, or
// that the database is not checked yet, rather than that the event cannot be handled.
func Unavailable(err error) bool {
	return errors.Is(err, mail.ErrServerUnavailable) || errors.Is(err, mail.ErrDatabaseUnchecked) || postgres.Unavailable(err)
}

type pinger interface {
	Ping(ctx context.Context) error
}

// Probe returns the probe of the consumer: whether the database is checked, and whether
// the mail server accepts mails.
func Probe(messages *store.Store, sender pinger) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := messages.Checked(ctx); err != nil {
			return err
		}
		return sender.Ping(ctx)
	}
}

// classified marks the errors that no retry can fix as permanent.
func classified(handle bus.Handler) bus.Handler {
	return func(ctx context.Context, e event.Event) error {
		err := handle(ctx, e)
		_, rejected := errors.AsType[*mail.PermanentlyRejectedError](err)
		if rejected || errors.Is(err, mail.ErrExpired) || errors.Is(err, event.ErrSeal) {
			return bus.Permanent(err)
		}
		return err
	}
}

type api struct{ messages *store.Store }

type message struct {
	ID        string     `json:"id"`
	EventID   string     `json:"eventId"`
	UserID    string     `json:"userId,omitempty"`
	To        string     `json:"to"`
	Template  string     `json:"template"`
	Status    string     `json:"status"`
	Attempts  int        `json:"attempts"`
	LastError string     `json:"lastError,omitempty"`
	MessageID string     `json:"messageId"`
	RequestID string     `json:"requestId,omitempty"`
	CreatedAt time.Time  `json:"createdAt"`
	UpdatedAt time.Time  `json:"updatedAt"`
	SentAt    *time.Time `json:"sentAt,omitempty"`

	NextAttemptAt *time.Time `json:"nextAttemptAt,omitempty"`
}

func messageOf(d mail.Delivery) message {
	out := message{
		ID: d.ID, EventID: d.EventID, UserID: d.UserID, To: d.To, Template: d.Template, Status: d.Status,
		Attempts: d.Attempts, LastError: d.LastError, MessageID: d.MessageID, RequestID: d.RequestID,
		CreatedAt: d.CreatedAt, UpdatedAt: d.UpdatedAt,
	}
	if !d.SentAt.IsZero() {
		out.SentAt = &d.SentAt
	}
	if d.Status == mail.StatusDeferred && !d.NextAttemptAt.IsZero() {
		out.NextAttemptAt = &d.NextAttemptAt
	}
	return out
}

var statuses = map[string]bool{
	"": true, mail.StatusQueued: true, mail.StatusSending: true, mail.StatusSent: true,
	mail.StatusDeferred: true, mail.StatusFailed: true, mail.StatusSuppressed: true, mail.StatusWithheld: true,
}

func (a *api) list(w http.ResponseWriter, r *http.Request) error {
	page, err := web.QueryOf(r).PageByID()
	if err != nil {
		return err
	}
	query := web.QueryOf(r)
	filter := store.Filter{To: query["to"], Template: query["template"], Status: query["status"], RequestID: query["requestId"]}
	if !statuses[filter.Status] {
		return problem.Validation(problem.Field{Field: "status", Code: "invalid_format", Message: "Invalid status: use queued, sending, sent, deferred, failed, suppressed or withheld."})
	}
	found, err := a.messages.List(r.Context(), filter, page.After, page.Limit+1)
	if err != nil {
		return err
	}
	messages := make([]message, len(found))
	for i, m := range found {
		messages[i] = messageOf(m)
	}
	return web.SendPage(w, page, messages, func(m message) cursor.Position { return cursor.ByID(m.ID) })
}

func (a *api) get(w http.ResponseWriter, r *http.Request) error {
	id := mux.Vars(r)["id"]
	if !web.ValidID(id) {
		return store.ErrNotFound
	}
	found, err := a.messages.Get(r.Context(), id)
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, messageOf(found))
}
