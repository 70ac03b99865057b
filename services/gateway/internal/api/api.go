// Package api is the gateway's HTTP edge: it maps prefixes to services, and checks every
// request before it goes on.
package api

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/docs"
	"github.com/headgate/headgate/services/gateway/internal/ratelimit"
	"github.com/headgate/headgate/services/gateway/internal/upstream"
)

// Route is one row of the routing table: a path and everything below it.
type Route struct {
	Path    string
	Service string
	Exact   bool // Only the path itself, nothing below it.
	Token   bool // Requires a valid access token. The service checks it again, and the caller's permissions.
	Upgrade bool // Allows a switch of protocol, such as to WebSocket.
}

// Routes are all routes to the services. auth-service's own table says which of its
// routes require a token.
var Routes = []Route{
	{Path: "/api/v1/auth", Service: "auth"},
	{Path: "/.well-known/jwks.json", Service: "auth", Exact: true},
	{Path: "/.well-known/openid-configuration", Service: "auth", Exact: true},
	{Path: "/.well-known/webauthn", Service: "auth", Exact: true},
	{Path: "/api/v1/user/export", Service: "user", Exact: true}, // The mailed link has a token of its own.
	{Path: "/api/v1/user/avatars", Service: "user"},
	{Path: "/api/v1/user", Service: "user", Token: true},
	{Path: "/api/v1/email", Service: "email", Token: true},
	{Path: "/api/v1/audit", Service: "audit", Token: true},
}

// match is a mux.MatcherFunc. mux's own matchers are regular expressions, which would be
// tried one after the other.
func (l Route) match(r *http.Request, _ *mux.RouteMatch) bool {
	rest, ok := strings.CutPrefix(r.URL.Path, l.Path)
	return ok && (rest == "" || rest[0] == '/' && !l.Exact)
}

// Config holds the parts of the edge.
type Config struct {
	Routes     []Route
	Services   map[string]*upstream.Service // by the names in Routes
	Version    string
	Verifier   web.Authenticator
	Limiter    *ratelimit.Limiter
	RateLimits RateLimits
	Reports    *Reports
	Docs       *docs.Docs
	CORS       CORS
	Realtime   Realtime
	Now        func() time.Time
	Edge       web.Options
}

// New returns the gateway's handler.
func New(cfg Config) http.Handler {
	limits := newRateLimiter(cfg)
	names := newRouteNames(cfg.Docs.Routes())
	forward := &forwarder{cfg.Verifier, limits, names}
	router := mux.NewRouter().SkipClean(true)
	router.Handle("/health", method(http.MethodGet, handler(healthOf(cfg.Version, cfg.Services))))
	router.Handle(docs.DocumentPath, cfg.Docs)
	router.Handle(docs.PagePath, cfg.Docs)
	router.PathPrefix(docs.PagePath + "/").Handler(cfg.Docs)
	router.Handle(rateLimitsPath, limits.rateLimits(cfg.Services["auth"]))
	if cfg.Realtime.Hub != nil {
		rt := newRealtimeRoutes(cfg, limits)
		router.Handle(ticketPath, method(http.MethodPost, handler(rt.issue)))
		router.Handle(socketPath, method(http.MethodGet, handler(rt.socket)))
		router.Handle(eventsPath, method(http.MethodGet, handler(rt.events)))
	}
	for _, route := range cfg.Routes {
		next := proxy{service: cfg.Services[route.Service], upgrade: route.Upgrade}
		router.MatcherFunc(route.match).Handler(forward.to(route, next))
	}
	router.NotFoundHandler = handler(func(http.ResponseWriter, *http.Request) error { return problem.ErrNotFound })

	return web.WithHealth(web.Edge(crossOrigin(cfg.CORS, checkRequest(dispatch(router), names)), cfg.Edge), cfg.Edge.Ready)
}

// dispatch calls the handler that router finds. router itself would copy each request to
// attach the route and the variables of its path, which nothing here needs.
func dispatch(router *mux.Router) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var match mux.RouteMatch
		router.Match(r, &match)
		match.Handler.ServeHTTP(w, r)
	})
}

func handler(h web.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			web.Fail(w, r, err)
		}
	})
}

func method(allowed string, next http.Handler) http.Handler {
	return handler(func(w http.ResponseWriter, r *http.Request) error {
		web.SetRoute(r.Context(), r.URL.Path)
		if r.Method != allowed && (r.Method != http.MethodHead || allowed != http.MethodGet) {
			w.Header().Set("Allow", allowed)
			return problem.ErrMethod
		}
		next.ServeHTTP(w, r)
		return nil
	})
}

// methods are those that any route behind the gateway may accept.
var methods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// checkRequest rejects requests that no route can accept, before anything else handles them.
func checkRequest(next http.Handler, names *routeNames) http.Handler {
	return handler(func(w http.ResponseWriter, r *http.Request) error {
		if !slices.Contains(methods, r.Method) {
			allowed := methods
			if canonical(r.URL) {
				if name := names.lookup(r.URL.Path); name.pattern != "" {
					allowed = name.allowed
				}
			}
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			if slices.Contains(allowed, http.MethodPatch) {
				w.Header().Set("Accept-Patch", web.AcceptPatch)
			}
			return problem.ErrMethod
		}
		if !canonical(r.URL) {
			return ErrPath
		}
		if len(r.TransferEncoding) > 0 {
			// The request may also have had a Content-Length, and a proxy in front may have
			// used that one. What follows on this connection cannot be trusted (RFC 9112, 6.1).
			w.Header()["Connection"] = []string{"close"}
		}
		if err := checkBodySize(w, r); err != nil {
			return err
		}
		next.ServeHTTP(w, r)
		return nil
	})
}

// forwarder is what every route needs to pass requests on.
type forwarder struct {
	verifier web.Authenticator
	limits   *rateLimiter
	names    *routeNames
}

// to checks the rate limits and the token, and passes the request on to next. The
// cheapest check comes first.
func (f *forwarder) to(route Route, next http.Handler) http.Handler {
	return handler(func(w http.ResponseWriter, r *http.Request) error {
		pattern := route.Path
		if name := f.names.lookup(r.URL.Path); name.pattern != "" {
			pattern = name.pattern
		}
		web.SetRoute(r.Context(), pattern)
		if err := f.limits.checkNetwork(w, r); err != nil {
			return err
		}
		identity, err := verifyToken(r, f.verifier)
		switch {
		case err == nil:
			web.SetUser(r.Context(), identity.UserID)
			if err := f.limits.checkUser(w, r, identity.UserID); err != nil {
				return err
			}
		case route.Token:
			web.Challenge(w.Header(), err)
			return err
		}
		limited := f.limits.routeOf(r, pattern)
		value, err := readBody(r, limited.bodyMember())
		if err != nil {
			return err
		}
		if err := f.limits.checkRoute(w, r, limited, identity.UserID, value); err != nil {
			return err
		}
		next.ServeHTTP(w, r)
		return nil
	})
}

// verifyToken returns the identity in the request's token. On public routes an invalid token
// is ignored: clients send an expired one along to /refresh.
func verifyToken(r *http.Request, verifier web.Authenticator) (token.Identity, error) {
	raw, err := web.Bearer(r)
	if err != nil {
		return token.Identity{}, err
	}
	return verifier.Verify(r.Context(), raw)
}
