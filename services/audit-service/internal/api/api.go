// Package api is the HTTP face of audit-service.
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

// Prefix is where audit-service's routes are.
const Prefix = "/api/v1/audit"

// Routes returns everything that audit-service itself answers, and who may ask.
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

// mine is the caller's own security feed. Of what others did it says what
// sort of actor it was, not who or from where.
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

// parseFilter reads the filters of a list. A parameter that is misspelt would
// silently show everything, so unknown ones are refused too.
func parseFilter(query url.Values) (store.Filter, error) {
	var faults []problem.Field
	fault := func(field, code, message string) {
		faults = append(faults, problem.Field{Field: field, Code: code, Message: message})
	}
	for name, values := range query {
		switch {
		case !parameters[name]:
			fault(name, "unknown_field", "This filter is not known here.")
		case len(values) > 1:
			fault(name, "repeated", "Give this filter once.")
		case len(values[0]) > maxFilter || !printable(values[0]):
			fault(name, "invalid_format", "This filter has a value that cannot be.")
		}
	}
	f := store.Filter{
		ActorID: query.Get("actorId"), SubjectID: query.Get("subjectId"), Type: query.Get("type"),
		Outcome: query.Get("outcome"), IP: query.Get("ip"), RequestID: query.Get("requestId"),
	}
	if f.Type != "" && !typeForm.MatchString(f.Type) {
		fault("type", "invalid_format", "A type is like user.signed_up.")
	}
	if f.Outcome != "" && !outcomes[f.Outcome] {
		fault("outcome", "invalid_format", "The outcome is success, failure or denied.")
	}
	if f.IP != "" {
		addr, err := netip.ParseAddr(f.IP)
		if err != nil {
			fault("ip", "invalid_format", "This is no IP address.")
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
			fault(name, "invalid_format", "Times are like 2026-01-31T12:00:00Z.")
		}
		*at = parsed
	}
	return f, problem.Validation(faults...)
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
