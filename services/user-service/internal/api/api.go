// Package api is the HTTP face of user-service and the handlers of its stream.
package api

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"unicode"

	"github.com/google/uuid"
	"github.com/gorilla/mux"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/user-service/internal/profile"
)

// Prefix is where user-service's routes are.
const Prefix = "/api/v1/user"

// Routes returns everything that user-service itself answers, and who may ask.
// They come after the routes of the dead letters, whose path looks like an id.
func Routes(profiles *profile.Profiles) []web.Route {
	a := &api{profiles: profiles}
	return []web.Route{
		{Method: http.MethodGet, Path: Prefix + "/me", Access: web.SignedIn, Handler: a.me},
		{Method: http.MethodPatch, Path: Prefix + "/me", Access: web.SignedIn, Handler: a.change},
		{Method: http.MethodGet, Path: Prefix + "/", Access: web.AdminOnly, Handler: a.list},
		{Method: http.MethodGet, Path: Prefix, Access: web.AdminOnly, Handler: a.list},
		{Method: http.MethodGet, Path: Prefix + "/{id}", Access: web.SignedIn, Handler: a.get},
		{Method: http.MethodDelete, Path: Prefix + "/{id}/cache", Access: web.AdminOnly, Handler: a.forget},
	}
}

// Handlers returns what user-service does on which event.
func Handlers(profiles *profile.Profiles) map[string]bus.Handler {
	return map[string]bus.Handler{
		event.UserSignedUp{}.EventName():       profiles.SignedUp,
		event.UserProfileUpdated{}.EventName(): profiles.Updated,
		event.UserLoggedOut{}.EventName():      profiles.SessionEnded,
		event.SessionRevoked{}.EventName():     profiles.SessionEnded,
	}
}

type api struct{ profiles *profile.Profiles }

func (a *api) me(w http.ResponseWriter, r *http.Request) error {
	me, cached, err := a.profiles.Me(r.Context(), web.Caller(r))
	if err != nil {
		return err
	}
	source := "MISS"
	if cached {
		source = "HIT"
	}
	w.Header().Set("X-Cache", source)
	w.Header().Set("ETag", etag(me.Version))
	if match := r.Header.Get("If-None-Match"); match != "" && matches(match, me.Version) {
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return web.OK(w, http.StatusOK, me)
}

func (a *api) change(w http.ResponseWriter, r *http.Request) error {
	change, err := web.Read[profile.Change](w, r)
	if err != nil {
		return err
	}
	var match func(int64) bool
	if header := r.Header.Get("If-Match"); header != "" {
		match = func(version int64) bool { return matches(header, version) }
	}
	changed, err := a.profiles.Change(r.Context(), web.Caller(r), change, match)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", etag(changed.Version))
	return web.OK(w, http.StatusOK, changed)
}

// get gives the same answer for a profile of another's and for none at all.
func (a *api) get(w http.ResponseWriter, r *http.Request) error {
	id, err := uuid.Parse(mux.Vars(r)["id"])
	if err != nil {
		return profile.ErrNotFound
	}
	caller := web.Caller(r)
	if id.String() == caller.UserID {
		return a.me(w, r)
	}
	if !caller.Is(token.RoleAdmin) {
		return problem.ErrForbidden
	}
	found, err := a.profiles.Get(r.Context(), id.String())
	if err != nil {
		return err
	}
	w.Header().Set("ETag", etag(found.Version))
	return web.OK(w, http.StatusOK, found)
}

const maxQuery = 100

func (a *api) list(w http.ResponseWriter, r *http.Request) error {
	page, err := web.ReadPage(r)
	if err != nil {
		return err
	}
	if page.After != "" && uuid.Validate(page.After) != nil {
		return web.ErrCursor
	}
	q := r.URL.Query().Get("q")
	if len(q) > maxQuery || strings.ContainsFunc(q, func(c rune) bool { return unicode.IsControl(c) || c == unicode.ReplacementChar }) {
		return problem.Validation(problem.Field{Field: "q", Code: "invalid_format", Message: "This cannot be looked for."})
	}
	found, err := a.profiles.List(r.Context(), q, page.After, page.Limit+1)
	if err != nil {
		return err
	}
	return web.SendPage(w, page, found, func(p profile.Profile) string { return p.UserID })
}

func (a *api) forget(w http.ResponseWriter, r *http.Request) error {
	id, err := uuid.Parse(mux.Vars(r)["id"])
	if err != nil {
		return profile.ErrNotFound
	}
	if err := a.profiles.Forget(r.Context(), id.String()); err != nil {
		return errors.Join(problem.ErrUnavailable, err)
	}
	return web.OK(w, http.StatusOK, struct{}{})
}

// etag is a strong validator (RFC 9110, 8.8.3).
func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

func matches(header string, version int64) bool {
	for candidate := range strings.SplitSeq(header, ",") {
		candidate = strings.TrimSpace(candidate)
		if candidate == "*" || candidate == etag(version) {
			return true
		}
	}
	return false
}
