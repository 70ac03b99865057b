package api

import (
	"net/http"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/web"
)

// rateLimits returns the routes that the gateway calls on behalf of its caller, with the
// caller's token and address: auth-service decides who may read and clear rate limits,
// and records that they were exceeded, read or cleared.
func (a *api) rateLimits() []web.Route {
	const path = event.RateLimitsPath
	return []web.Route{
		{Method: http.MethodPost, Path: path + "/exceeded", Access: web.Anyone, Handler: record[event.RateLimitExceeded](a)},
		{Method: http.MethodPost, Path: path + "/exceeded-by-caller", Access: web.SignedIn, Handler: record[event.RateLimitExceeded](a)},
		{Method: http.MethodPost, Path: path + "/read", Access: web.AdminOnly, Handler: func(w http.ResponseWriter, r *http.Request) error {
			if err := a.accounts.Record(r.Context(), event.AuditRead{Route: prefix + "/rate-limits"}); err != nil {
				return err
			}
			return web.OK(w, http.StatusOK, struct{}{})
		}},
		{Method: http.MethodPost, Path: path + "/cleared", Access: web.AdminOnly.Recently(), Handler: record[event.RateLimitCleared](a)},
	}
}

// record stores the event in the body. Its subject is the caller.
func record[T event.Payload](a *api) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		report, err := web.Read[T](w, r)
		if err != nil {
			return err
		}
		if err := a.accounts.Record(r.Context(), report); err != nil {
			return err
		}
		return web.OK(w, http.StatusAccepted, struct{}{})
	}
}
