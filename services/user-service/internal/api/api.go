// Package api has the HTTP routes of user-service and its event handlers.
package api

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/gorilla/mux"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/user-service/internal/profile"
)

// Prefix is the path prefix of user-service.
const Prefix = "/api/v1/user"

// id matches no other path, so that each path has its own methods.
const id = "/{id:[0-9A-Fa-f-]{36}}"

// Routes returns the routes of user-service and who may call them.
func Routes(profiles *profile.Profiles, exports *profile.Exports, assets Assets) []web.Route {
	a := &api{profiles: profiles, exports: exports, assets: assets}
	return []web.Route{
		{Method: http.MethodGet, Path: Prefix + "/me/export", Access: web.SignedIn.Recently(), Handler: a.export, Recorded: true},
		{Method: http.MethodPost, Path: Prefix + "/me/export", Access: web.SignedIn.Recently(), Handler: a.mailExport},
		{Method: http.MethodGet, Path: Prefix + "/export", Access: web.Anyone, Query: web.Takes("token"), Handler: a.openExport},
		{Method: http.MethodGet, Path: Prefix + "/me", Access: web.SignedIn, Handler: a.me},
		{Method: http.MethodPatch, Path: Prefix + "/me", Access: web.SignedIn, Handler: a.change},
		{Method: http.MethodGet, Path: Prefix + "/", Access: web.AdminOnly, Query: web.TakesPage("q", "createdAfter", "createdBefore"), Handler: a.list},
		{Method: http.MethodGet, Path: Prefix, Access: web.AdminOnly, Query: web.TakesPage("q", "createdAfter", "createdBefore"), Handler: a.list},
		{Method: http.MethodGet, Path: Prefix + id, Access: web.AdminOnly.OrSelf(), Handler: a.get},
		{Method: http.MethodDelete, Path: Prefix + id + "/cache", Access: web.AdminOnly, Handler: a.dropCache},
	}
}

// Handlers returns the handler of each event.
func Handlers(profiles *profile.Profiles, avatars *profile.Avatars) map[string]bus.Handler {
	return map[string]bus.Handler{
		event.UserSignedUp{}.EventName():       profiles.SignedUp,
		event.UserEmailChanged{}.EventName():   profiles.EmailChanged,
		event.UserDeleted{}.EventName():        avatars.Deleted,
		event.UserProfileUpdated{}.EventName(): profiles.Updated,
		event.UserLoggedOut{}.EventName():      profiles.SessionEnded,
		event.SessionRevoked{}.EventName():     profiles.SessionEnded,
	}
}

// Unavailable says whether err means that Postgres, the cache or the storage of avatars is
// unavailable, rather than that the event cannot be handled.
func Unavailable(err error) bool {
	return errors.Is(err, profile.ErrCacheUnavailable) || errors.Is(err, profile.ErrAvatarStorage) || postgres.Unavailable(err)
}

type api struct {
	profiles *profile.Profiles
	exports  *profile.Exports
	assets   Assets
}

func (a *api) me(w http.ResponseWriter, r *http.Request) error {
	caller, err := callingUser(r)
	if err != nil {
		return err
	}
	me, cached, err := a.profiles.Me(r.Context(), caller)
	if err != nil {
		return err
	}
	describe(w, me, cached)
	// This comparison is weak, unlike that of If-Match (RFC 9110, 13.1.2).
	if matches(strings.ReplaceAll(list(r, "If-None-Match"), "W/", ""), me.Version) {
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return web.OK(w, http.StatusOK, a.assets.Shown(me))
}

var sources = map[bool]string{true: "HIT", false: "MISS"}

// describe sets the headers of a profile that was read.
func describe(w http.ResponseWriter, p profile.Profile, cached bool) {
	w.Header().Set("X-Cache", sources[cached])
	w.Header().Set("ETag", etag(p.Version))
}

// callingUser returns the caller. It fails with token.ErrInvalid if the token is not that
// of an account.
func callingUser(r *http.Request) (profile.Caller, error) {
	caller := profile.Caller{Identity: web.Caller(r)}
	userID, err := uuid.Parse(caller.UserID)
	if err != nil {
		return profile.Caller{}, token.ErrInvalid
	}
	caller.UserID = userID.String()
	caller.Token, err = web.Bearer(r)
	return caller, err
}

// list returns the values of a list header as one list.
func list(r *http.Request, header string) string { return strings.Join(r.Header.Values(header), ",") }

func (a *api) change(w http.ResponseWriter, r *http.Request) error {
	caller, err := callingUser(r)
	if err != nil {
		return err
	}
	change, err := web.Read[profile.Change](w, r)
	if err != nil {
		return err
	}
	change.Merge = web.IsMergePatch(r)
	changed, err := a.profiles.Change(r.Context(), caller, change, ifMatch(r))
	if err != nil {
		return err
	}
	w.Header().Set("ETag", etag(changed.Version))
	return web.OK(w, http.StatusOK, a.assets.Shown(changed))
}

// ifMatch returns the condition that If-Match sets, or nil (RFC 9110, 13.1.1).
func ifMatch(r *http.Request) func(version int64) bool {
	header := list(r, "If-Match")
	if header == "" {
		return nil
	}
	return func(version int64) bool { return matches(header, version) }
}

// get answers the same for another user's profile as for one that does not exist, unless
// an administrator asks.
func (a *api) get(w http.ResponseWriter, r *http.Request) error {
	id := mux.Vars(r)["id"]
	if !web.ValidID(id) {
		return profile.ErrNotFound
	}
	if strings.EqualFold(id, web.Caller(r).UserID) {
		return a.me(w, r)
	}
	found, cached, err := a.profiles.Get(r.Context(), id)
	if err != nil {
		return err
	}
	describe(w, found, cached)
	return web.OK(w, http.StatusOK, a.assets.Shown(found))
}

func (a *api) list(w http.ResponseWriter, r *http.Request) error {
	page, err := web.QueryOf(r).Page()
	if err != nil {
		return err
	}
	search, err := readSearch(web.QueryOf(r))
	if err != nil {
		return err
	}
	found, err := a.profiles.List(r.Context(), web.Caller(r).UserID, search, page.After, page.Limit+1)
	if err != nil {
		return err
	}
	for i, p := range found {
		found[i] = a.assets.Shown(p)
	}
	return web.SendPage(w, page, found, func(p profile.Profile) cursor.Position { return cursor.At(p.CreatedAt, p.UserID) })
}

func (a *api) dropCache(w http.ResponseWriter, r *http.Request) error {
	id := mux.Vars(r)["id"]
	if !web.ValidID(id) {
		return profile.ErrNotFound
	}
	if err := a.profiles.DropCached(r.Context(), id); err != nil {
		return errors.Join(problem.ErrUnavailable, err)
	}
	return web.OK(w, http.StatusOK, struct{}{})
}

// etag is a strong validator (RFC 9110, 8.8.3).
func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

func matches(header string, version int64) bool { return hasTag(header, etag(version)) }

// hasTag reports whether a list of entity tags has tag or is *.
func hasTag(header, tag string) bool {
	for candidate := range strings.SplitSeq(header, ",") {
		candidate = strings.TrimSpace(candidate)
		if candidate == "*" || candidate == tag {
			return true
		}
	}
	return false
}
