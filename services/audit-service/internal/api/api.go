// Package api has the HTTP routes of audit-service.
package api

import (
	"net/http"
	"net/netip"
	"regexp"
	"time"

	"github.com/gorilla/mux"

	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/audit-service/internal/store"
)

// Prefix is the path prefix of audit-service.
const Prefix = "/api/v1/audit"

// Routes returns the routes of audit-service and who may call them.
func Routes(log *store.Store) []web.Route {
	a := &api{log: log}
	return []web.Route{
		{Method: http.MethodGet, Path: Prefix + "/events", Access: web.AuditReaders, Query: web.TakesPage(filters...), Handler: a.list},
		{Method: http.MethodGet, Path: Prefix + "/events/{id}", Access: web.AuditReaders, Handler: a.get},
		{Method: http.MethodGet, Path: Prefix + "/me", Access: web.SignedIn, Query: web.TakesPage(), Handler: a.mine},
		web.ExportRoute(a.export),
	}
}

type api struct{ log *store.Store }

func (a *api) list(w http.ResponseWriter, r *http.Request) error {
	filter, err := parseFilter(web.QueryOf(r))
	if err != nil {
		return err
	}
	return a.page(w, r, filter, func(record store.Record) store.Record { return record })
}

func (a *api) get(w http.ResponseWriter, r *http.Request) error {
	id := mux.Vars(r)["id"]
	if !web.ValidID(id) {
		return store.ErrNotFound
	}
	record, err := a.log.Get(r.Context(), id)
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, record)
}

// mine lists the records of the caller as actor or subject. For an action of another user
// it shows the type of the actor, but neither the id nor the address.
func (a *api) mine(w http.ResponseWriter, r *http.Request) error {
	caller := web.Caller(r).UserID
	return a.page(w, r, store.Filter{Party: caller}, func(record store.Record) store.Record { return shown(record, caller) })
}

// shown returns what a user may see of a record of which they are actor or subject.
func shown(record store.Record, userID string) store.Record {
	if record.Actor.ID != "" && record.Actor.ID != userID {
		record.Actor.ID, record.IP, record.UserAgent, record.RequestID = "", "", "", ""
	}
	if record.SubjectID != userID {
		record.SubjectID, record.Data = "", []byte("{}")
	}
	return record
}

func (a *api) page(w http.ResponseWriter, r *http.Request, filter store.Filter, show func(store.Record) store.Record) error {
	page, err := web.QueryOf(r).PageByID()
	if err != nil {
		return err
	}
	records, err := a.log.List(r.Context(), filter, page.After, page.Limit+1)
	if err != nil {
		return err
	}
	for i := range records {
		records[i] = show(records[i])
	}
	return web.SendPage(w, page, records, func(record store.Record) cursor.Position { return cursor.ByID(record.ID) })
}

var (
	filters  = []string{"actorId", "subjectId", "type", "outcome", "ip", "requestId", "from", "to"}
	typeForm = regexp.MustCompile(`^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$`)
	outcomes = map[string]bool{"": true, "success": true, "failure": true, "denied": true}
)

// parseFilter reads the filters of a list.
func parseFilter(query web.Query) (store.Filter, error) {
	var invalid []problem.Field
	reject := func(field, code, message string) {
		invalid = append(invalid, problem.Field{Field: field, Code: code, Message: message})
	}
	f := store.Filter{
		ActorID: query["actorId"], SubjectID: query["subjectId"], Type: query["type"],
		Outcome: query["outcome"], IP: query["ip"], RequestID: query["requestId"],
	}
	if f.Type != "" && !typeForm.MatchString(f.Type) {
		reject("type", "invalid_format", "Invalid type: use an event type, for example user.signed_up.")
	}
	if !outcomes[f.Outcome] {
		reject("outcome", "invalid_format", "Invalid outcome: use success, failure or denied.")
	}
	if f.IP != "" {
		addr, err := netip.ParseAddr(f.IP)
		if err != nil || addr.Zone() != "" {
			reject("ip", "invalid_format", "Invalid IP address: use an IPv4 or IPv6 address.")
		}
		f.IP = addr.Unmap().String()
	}
	for _, bound := range []struct {
		name string
		at   *time.Time
	}{{"from", &f.From}, {"to", &f.To}} {
		text := query[bound.name]
		if text == "" {
			continue
		}
		parsed, err := time.Parse(time.RFC3339, text)
		if err != nil {
			reject(bound.name, "invalid_format", "Invalid timestamp: use RFC 3339, for example 2026-01-31T12:00:00Z. In a URL, write + as %2B.")
		}
		*bound.at = parsed
	}
	if len(invalid) == 0 && !f.To.IsZero() && f.From.After(f.To) {
		reject("from", "out_of_range", "from must not be later than to.")
	}
	return f, problem.Validation(invalid...)
}
