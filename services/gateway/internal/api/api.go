// Package api is the gateway's edge: which prefix belongs to which service, and
// what a request must pass before it gets there.
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

// Route is one line of the table of routes: a path and all below it.
type Route struct {
	Path    string
	Service string
	Exact   bool // Is it the path itself only, and nothing below?
	Token   bool // Must the request carry a good access token? The service checks again, and who may do what.
	Upgrade bool // May a request switch protocols, as to WebSocket?
}

// Routes is the whole surface behind the gateway. auth-service's own table says
// which of its routes need a token.
var Routes = []Route{
	{Path: "/api/v1/auth", Service: "auth"},
	{Path: "/.well-known/jwks.json", Service: "auth", Exact: true},
	{Path: "/.well-known/openid-configuration", Service: "auth", Exact: true},
	{Path: "/api/v1/user", Service: "user", Token: true},
	{Path: "/api/v1/email", Service: "email", Token: true},
	{Path: "/api/v1/audit", Service: "audit", Token: true},
}

// match is a mux.MatcherFunc. mux's own are regular expressions, of which a request
// would try one after the other.
func (l Route) match(r *http.Request, _ *mux.RouteMatch) bool {
	rest, ok := strings.CutPrefix(r.URL.Path, l.Path)
	return ok && (rest == "" || rest[0] == '/' && !l.Exact)
}

// Config is what the edge is made of.
type Config struct {
	Routes     []Route
	Services   map[string]*upstream.Service // by the names in Routes
	Version    string
	Verifier   web.Authenticator
	Limiter    *ratelimit.Limiter
	RateLimits RateLimits
	Reports    *Reports
	Docs       *docs.Docs
	Origins    Origins
	Now        func() time.Time
	Edge       web.Options
}

// New returns the gateway's handler.
func New(cfg Config) http.Handler {
	limits := newRateLimiter(cfg)
	names := newNames(cfg.Docs.Routes())
	router := mux.NewRouter().SkipClean(true)
	router.Handle("/health", method(http.MethodGet, handler(healthOf(cfg.Version, cfg.Services))))
	router.Handle(docs.DocumentPath, cfg.Docs)
	router.Handle(docs.PagePath, cfg.Docs)
	router.PathPrefix(docs.PagePath + "/").Handler(cfg.Docs)
	router.Handle(rateLimitsPath, limits.rateLimits(cfg.Services["auth"]))
	for _, line := range cfg.Routes {
		next := newProxy(cfg.Services[line.Service], line.Upgrade, cfg.Edge.Log)
		router.MatcherFunc(line.match).Handler(forward(line, next, cfg.Verifier, limits, names))
	}
	router.NotFoundHandler = handler(func(http.ResponseWriter, *http.Request) error { return problem.ErrNotFound })

	return web.WithHealth(web.Edge(crossOrigin(cfg.Origins, checked(matched(router), names)), cfg.Edge), cfg.Edge.Ready)
}

// matched is router without the copies of the request that carry variables of the
// path, which nothing here has, and the route.
func matched(router *mux.Router) http.Handler {
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

// methods are those that some route behind the gateway may take.
var methods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// checked refuses what no route can want, before anything looks at it.
func checked(next http.Handler, names *names) http.Handler {
	return handler(func(w http.ResponseWriter, r *http.Request) error {
		if !slices.Contains(methods, r.Method) {
			allowed := methods
			if canonical(r.URL) {
				if name := names.of(r.URL.Path); name.pattern != "" {
					allowed = name.allowed
				}
			}
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			return problem.ErrMethod
		}
		if !canonical(r.URL) {
			return ErrPath
		}
		if len(r.TransferEncoding) > 0 {
			// It may have had a length besides, and whoever passed it on may have gone by
			// that: what follows on this connection is nobody's (RFC 9112, 6.1).
			w.Header()["Connection"] = []string{"close"}
		}
		if err := limited(w, r); err != nil {
			return err
		}
		next.ServeHTTP(w, r)
		return nil
	})
}

// forward checks the limits and the token and passes the request on. What costs
// least comes first.
func forward(line Route, next http.Handler, verifier web.Authenticator, limits *rateLimiter, names *names) http.Handler {
	return handler(func(w http.ResponseWriter, r *http.Request) error {
		route := line.Path
		if name := names.of(r.URL.Path); name.pattern != "" {
			route = name.pattern
		}
		web.SetRoute(r.Context(), route)
		if err := limits.checkNetwork(w, r); err != nil {
			return err
		}
		identity, err := identify(r, verifier)
		switch {
		case err == nil:
			web.SetUser(r.Context(), identity.UserID)
			if err := limits.checkUser(w, r, identity.UserID); err != nil {
				return err
			}
		case line.Token:
			web.Challenge(w.Header(), err)
			return err
		}
		value, err := readBody(r, limits.bodyMember(r))
		if err != nil {
			return err
		}
		if err := limits.checkRoute(w, r, value); err != nil {
			return err
		}
		next.ServeHTTP(w, r)
		return nil
	})
}

// identify returns whom the request's token speaks for. Where a token is not
// needed, a bad one is none: clients send the stale one along to /refresh.
func identify(r *http.Request, verifier web.Authenticator) (token.Identity, error) {
	raw, err := web.Bearer(r)
	if err != nil {
		return token.Identity{}, err
	}
	return verifier.Verify(r.Context(), raw)
}
