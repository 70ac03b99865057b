package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
)

// Handler answers a request or returns the error that Fail shows.
type Handler func(w http.ResponseWriter, r *http.Request) error

// Access says who may call a route.
type Access struct {
	public  bool
	revoked bool
	roles   []string
}

// OrRevoked also lets in whose session was ended already, for what must be
// repeatable although it ends the session.
func (a Access) OrRevoked() Access {
	a.revoked = true
	return a
}

// Who may call. The zero value lets nobody in, so a forgotten rule is safe.
var (
	Anyone       = Access{public: true}
	SignedIn     = Access{roles: []string{token.RoleUser, token.RoleAuditor, token.RoleAdmin}}
	AdminOnly    = Access{roles: []string{token.RoleAdmin}}
	AuditReaders = Access{roles: []string{token.RoleAdmin, token.RoleAuditor}}
)

// Route is one line of a service's table of routes: what is called how, by whom.
type Route struct {
	Method  string
	Path    string // as gorilla/mux writes it: /users/{id}
	Access  Access
	Handler Handler
}

// Authenticator tells whom a bearer token speaks for.
type Authenticator interface {
	Verify(ctx context.Context, raw string) (token.Identity, error)
}

// Options are what a router needs besides its routes.
type Options struct {
	Auth           Authenticator
	TrustedProxies Prefixes
	Development    bool
	Log            *slog.Logger
	Metrics        prometheus.Registerer

	// Unavailable tells a dependency that is away from a fault of ours: the answer
	// is 503 in place of 500. Nothing is if it is nil.
	Unavailable func(error) bool

	// Refused is told of requests that were understood and refused, as the event
	// that says so: AccessDenied for a caller who is known and may not ask, else
	// RequestRefused. It may be nil.
	Refused func(ctx context.Context, refused event.Payload)

	// Ready tells whether requests can be answered; see WithHealth. It may be nil.
	Ready func(context.Context) error
}

// NewRouter returns the handler for routes. Requests that none of them takes
// are answered with 404, or with 405 and the methods that the path has.
func NewRouter(routes []Route, o Options) http.Handler {
	router := mux.NewRouter().SkipClean(true)
	methods := map[string][]string{}
	for _, route := range routes {
		methods[route.Path] = append(methods[route.Path], route.Method)
		if route.Method == http.MethodGet {
			methods[route.Path] = append(methods[route.Path], http.MethodHead)
		}
	}
	for _, route := range routes {
		m := []string{route.Method}
		if route.Method == http.MethodGet {
			m = append(m, http.MethodHead)
		}
		router.Handle(route.Path, serve(route, o)).Methods(m...)
	}
	// In the order of the routes: the first pattern that fits a path speaks for it.
	for _, route := range routes {
		path := route.Path
		allowed := methods[path]
		if allowed == nil {
			continue
		}
		delete(methods, path)
		slices.Sort(allowed)
		allow := strings.Join(slices.Compact(allowed), ", ")
		router.Handle(path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			SetRoute(r.Context(), path)
			w.Header().Set("Allow", allow)
			Fail(w, r, problem.ErrMethod)
		}))
	}
	router.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Fail(w, r, problem.ErrNotFound)
	})
	return WithHealth(Edge(router, o), o.Ready)
}

func serve(route Route, o Options) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		SetRoute(r.Context(), route.Path)
		r, err := authorize(r, route.Access, o.Auth)
		if err == nil {
			err = route.Handler(w, r)
		}
		if err != nil {
			failRoute(w, r, route, err, o)
		}
	})
}

func failRoute(w http.ResponseWriter, r *http.Request, route Route, err error, o Options) {
	if !route.Access.public {
		Challenge(w.Header(), err)
	}
	if o.Refused != nil {
		if denied := refusedEvent(r.Context(), route, err); denied != nil {
			o.Refused(r.Context(), denied)
		}
	}
	Fail(w, r, err)
}

// refusedEvent returns the event that tells of a request that was understood and
// refused, or nil: for what is no request for this service, what is wrong in form
// only, what an event tells of already, and what a bad or missing token asked for,
// which nobody can be held to.
func refusedEvent(ctx context.Context, route Route, err error) event.Payload {
	p := ProblemOf(ctx, err)
	_, known := token.From(ctx)
	switch {
	case problem.IsRecorded(err):
		return nil
	case p.Kind == problem.Forbidden && known:
		return event.AccessDenied{Method: route.Method, Route: route.Path}
	case !known && !route.Access.public:
		return nil
	case errors.Is(p, problem.ErrValidation), errors.Is(p, problem.ErrMalformedBody):
		return nil
	case slices.Contains(recordedKinds, p.Kind):
		return event.RequestRefused{Method: route.Method, Route: route.Path, Code: p.Code}
	}
	return nil
}

var recordedKinds = []problem.Kind{
	problem.Invalid, problem.Unauthenticated, problem.Forbidden, problem.Conflict, problem.Gone, problem.TooManyRequests,
}

// authorize checks the caller's token against the route's rule. A public route
// takes no notice of tokens at all.
func authorize(r *http.Request, access Access, auth Authenticator) (*http.Request, error) {
	if access.public {
		return r, nil
	}
	raw, err := Bearer(r)
	if err != nil {
		return r, err
	}
	identity, err := auth.Verify(r.Context(), raw)
	if err != nil && (!access.revoked || !errors.Is(err, token.ErrRevoked)) {
		return r, err
	}
	SetUser(r.Context(), identity.UserID)
	ctx := token.WithIdentity(r.Context(), identity)
	ctx = event.WithActor(ctx, event.Actor{Type: identity.Role, ID: identity.UserID})
	r = r.WithContext(ctx)
	if !identity.Is(access.roles...) {
		return r, problem.ErrForbidden
	}
	return r, nil
}

// Challenge tells in h that the bearer token of a request that needs one is no good
// (RFC 6750, 3.1), if that is what err says: if it says something else, such as a
// wrong password, another token would not help.
func Challenge(h http.Header, err error) {
	p := problem.From(err)
	if errors.Is(p, token.ErrInvalid) || errors.Is(p, token.ErrExpired) || errors.Is(p, token.ErrRevoked) {
		h.Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	}
}

// Bearer returns the token in the Authorization header (RFC 6750, 2.1).
func Bearer(r *http.Request) (string, error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return "", problem.ErrUnauthenticated
	}
	scheme, raw, ok := strings.Cut(values[0], " ")
	if len(values) > 1 || !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", token.ErrInvalid
	}
	return strings.TrimSpace(raw), nil
}

// Caller returns the identity that a route which is not public has. It panics
// on a public one: that is a mistake in the table.
func Caller(r *http.Request) token.Identity {
	identity, ok := token.From(r.Context())
	if !ok {
		panic(fmt.Sprintf("no caller: %s is public", r.URL.Path))
	}
	return identity
}
