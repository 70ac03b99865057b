// Package api has the HTTP routes of audit-service.
package api

import (
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"time"
	"unicode/utf8"

	"github.com/gorilla/mux"

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
		{Method: http.MethodGet, Path: Prefix + "/events", Access: web.AuditReaders, Handler: a.list},
		{Method: http.MethodGet, Path: Prefix + "/events/{id}", Access: web.AuditReaders, Handler: a.get},
		{Method: http.MethodGet, Path: Prefix + "/me", Access: web.SignedIn, Handler: a.mine},
	}
}

type api struct{ log *store.Store }

func (a *api) list(w http.ResponseWriter, r *http.Request) error {
	filter, err := parseFilter(r.URL.Query())
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
	return a.page(w, r, store.Filter{Party: caller}, func(record store.Record) store.Record {
		if record.Actor.ID != "" && record.Actor.ID != caller {
			record.Actor.ID, record.IP, record.UserAgent, record.RequestID = "", "", "", ""
		}
		if record.SubjectID != caller {
			record.SubjectID, record.Data = "", []byte("{}")
		}
		return record
	})
}

func (a *api) page(w http.ResponseWriter, r *http.Request, filter store.Filter, show func(store.Record) store.Record) error {
	page, err := web.ReadPage(r)
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
	return web.SendPage(w, page, records, func(record store.Record) string { return record.ID })
}

const maxFilter = 256

var (
	typeForm   = regexp.MustCompile(`^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$`)
	outcomes   = map[string]bool{"success": true, "failure": true, "denied": true}
	parameters = map[string]bool{
		"actorId": true, "subjectId": true, "type": true, "outcome": true, "ip": true, "requestId": true,
		"from": true, "to": true, "cursor": true, "limit": true,
	}
)

// parseFilter reads the filters of a list. It rejects unknown parameters, because a
// misspelt filter would silently show every record.
func parseFilter(query url.Values) (store.Filter, error) {
	var invalid []problem.Field
	reject := func(field, code, message string) {
		invalid = append(invalid, problem.Field{Field: field, Code: code, Message: message})
	}
	for name, values := range query {
		switch {
		case !parameters[name]:
			reject(name, "unknown_field", "Unknown query parameter.")
		case len(values) > 1:
			reject(name, "repeated", "Repeated query parameter.")
		case len(values[0]) > maxFilter || !printable(values[0]):
			reject(name, "invalid_format", "Invalid value: use at most 256 printable characters.")
		}
	}
	f := store.Filter{
		ActorID: query.Get("actorId"), SubjectID: query.Get("subjectId"), Type: query.Get("type"),
		Outcome: query.Get("outcome"), IP: query.Get("ip"), RequestID: query.Get("requestId"),
	}
	if f.Type != "" && !typeForm.MatchString(f.Type) {
		reject("type", "invalid_format", "Invalid type: use an event type, for example user.signed_up.")
	}
	if f.Outcome != "" && !outcomes[f.Outcome] {
		reject("outcome", "invalid_format", "Invalid outcome: use success, failure or denied.")
	}
	if f.IP != "" {
		addr, err := netip.ParseAddr(f.IP)
		if err != nil {
			reject("ip", "invalid_format", "Invalid IP address.")
		}
		f.IP = addr.Unmap().String()
	}
	for name, at := range map[string]*time.Time{"from": &f.From, "to": &f.To} {
		text := query.Get(name)
		if text == "" {
			continue
		}
		parsed, err := time.Parse(time.RFC3339, text)
		if err != nil {
			reject(name, "invalid_format", "Invalid timestamp: use RFC 3339, for example 2026-01-31T12:00:00Z.")
		}
		*at = parsed
	}
	return f, problem.Validation(invalid...)
}

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f {
			return false
		}
	}
	return true
}
