package api

import (
	"net/http"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/web"
)

// rateLimits are the routes by which the gateway asks on behalf of its own caller,
// with their token and address: who may see and clear its limits is decided here, as
// everything else, and so is written down what happened.
func (a *api) rateLimits() []web.Route {
	const path = event.RateLimitsPath
	return []web.Route{
		{Method: http.MethodPost, Path: path + "/exceeded", Access: web.Anyone, Handler: record[event.RateLimitExceeded](a)},
		{Method: http.MethodPost, Path: path + "/exceeded-by-caller", Access: web.SignedIn, Handler: record[event.RateLimitExceeded](a)},
		{Method: http.MethodPost, Path: path + "/read", Access: web.AdminOnly, Handler: func(w http.ResponseWriter, _ *http.Request) error {
			return web.OK(w, http.StatusOK, struct{}{})
		}},
		{Method: http.MethodPost, Path: path + "/cleared", Access: web.AdminOnly, Handler: record[event.RateLimitCleared](a)},
	}
}

// record writes down the event in the body. Its subject is whoever asks.
func record[T event.Payload](a *api) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		told, err := web.Read[T](w, r)
		if err != nil {
			return err
		}
		if err := a.accounts.Record(r.Context(), told); err != nil {
			return err
		}
		return web.OK(w, http.StatusAccepted, struct{}{})
	}
}
