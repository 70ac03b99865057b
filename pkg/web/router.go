package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
)

// Handler responds to a request, or returns an error for Fail.
type Handler func(w http.ResponseWriter, r *http.Request) error

// Access says who may call a route.
type Access struct {
	public  bool
	caller  bool
	revoked bool
	recent  bool
	self    bool
	roles   []string
}

// OrSelf also accepts the user whose id is the variable id in the path.
func (a Access) OrSelf() Access {
	a.self = true
	return a
}

// Recently also requires that the caller was authenticated within StepUp.ReauthWindow, with
// the second factor if the account has one: for changes that a thief of a session must not
// make. Otherwise the response is 401 reauth_required.
func (a Access) Recently() Access {
	a.recent = true
	return a
}

// OrRevoked also accepts callers whose session was ended, for routes that end the session
// and must be repeatable.
func (a Access) OrRevoked() Access {
	a.revoked = true
	return a
}

// WithCaller lets a public route know who calls it: if the request has a valid token,
// token.From returns its identity. Any other token is ignored.
func (a Access) WithCaller() Access {
	a.caller = true
	return a
}

// Who may call a route. The zero value allows nobody, so a forgotten rule is safe.
var (
	Anyone       = Access{public: true}
	SignedIn     = Access{roles: []string{token.RoleUser, token.RoleAuditor, token.RoleAdmin}}
	AdminOnly    = Access{roles: []string{token.RoleAdmin}}
	AuditReaders = Access{roles: []string{token.RoleAdmin, token.RoleAuditor}}
)

// Route is one row of a service's routing table.
type Route struct {
	Method  string
	Path    string // as gorilla/mux writes it: /users/{id}
	Access  Access
	Query   Parameters // that the handler reads with QueryOf; any other is refused
	Handler Handler

	// Recorded says that the handler records what its caller read; see Options.Read.
	Recorded bool
}

// Authenticator returns the identity in a bearer token.
type Authenticator interface {
	Verify(ctx context.Context, raw string) (token.Identity, error)
}

// Options are the options of a router.
type Options struct {
	Auth           Authenticator
	StepUp         StepUp
	Now            func() time.Time // nil for time.Now
	TrustedProxies Prefixes
	Development    bool
	Log            *slog.Logger
	Metrics        prometheus.Registerer

	// Unavailable reports whether an error means that the same request may succeed soon:
	// a dependency is unavailable, or a row was locked for too long. The response is 503
	// then, in place of 500. It may be nil.
	Unavailable func(error) bool

	// Refused is called with the event for a well-formed request that was rejected:
	// AccessDenied if an authenticated caller lacks the permission, else RequestRefused. It
	// may be nil.
	Refused func(ctx context.Context, refused event.Countable)

	// Read is called with the event for each privileged read, before the response is sent. The
	// subject is the user whose data it is, or empty. If it fails, the response is 503. It may
	// be nil.
	Read func(ctx context.Context, subject string, read event.Payload) error

	// Ready returns an error while requests cannot be handled; see WithHealth. It may be nil.
	Ready func(context.Context) error
}

func (o Options) now() time.Time {
	if o.Now == nil {
		return time.Now()
	}
	return o.Now()
}

// NewRouter returns the handler for routes. An unknown path returns 404, an unsupported
// method 405 with an Allow header.
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
	// In the order of the routes, because the first pattern that matches a path decides.
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
			if slices.Contains(allowed, http.MethodPatch) {
				w.Header().Set("Accept-Patch", AcceptPatch)
			}
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
		r, err := authorize(r, route.Access, o)
		if err == nil {
			r, err = withQuery(r, route.Query)
		}
		if err == nil {
			err = serveRead(w, r, route, o)
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

// refusedEvent returns the event for a request that was rejected, or nil. There is no event
// for unknown routes, for invalid input, for failures that another event records already,
// and for requests with a missing or invalid token, which cannot be attributed to anybody.
func refusedEvent(ctx context.Context, route Route, err error) event.Countable {
	p := ProblemOf(ctx, err)
	_, known := token.From(ctx)
	switch {
	case problem.IsRecorded(err):
		return nil
	case p.Kind == problem.Forbidden && known && !route.Access.public:
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

// authorize checks the caller's token against the route's rule and returns r with the
// caller's identity. A public route ignores tokens unless it has WithCaller.
func authorize(r *http.Request, access Access, o Options) (*http.Request, error) {
	if access.public && (!access.caller || o.Auth == nil) {
		return r, nil
	}
	identity, err := identify(r, o.Auth)
	switch {
	case err == nil, access.revoked && errors.Is(err, token.ErrRevoked):
	case access.public:
		return r, nil
	default:
		return r, err
	}
	identity = o.StepUp.Restrict(identity)
	SetUser(r.Context(), identity.UserID)
	ctx := token.WithIdentity(r.Context(), identity)
	ctx = event.WithActor(ctx, event.Actor{Type: identity.Role, ID: identity.UserID})
	r = r.WithContext(ctx)
	if access.public {
		return r, nil
	}
	if !access.self || !isSelf(r) {
		if err := Require(identity, access.roles...); err != nil {
			return r, err
		}
	}
	if access.recent && !o.StepUp.recent(identity, o.now()) {
		return r, ErrReauthRequired
	}
	return r, nil
}

// identify returns the identity in the request's token, even if its session was ended.
func identify(r *http.Request, auth Authenticator) (token.Identity, error) {
	raw, err := Bearer(r)
	if err != nil {
		return token.Identity{}, err
	}
	return auth.Verify(r.Context(), raw)
}

// Challenge sets WWW-Authenticate in h if err says that the bearer token is invalid (RFC
// 6750, 3.1). For other errors, such as a wrong password, another token would not help.
func Challenge(h http.Header, err error) {
	p := problem.From(err)
	if errors.Is(p, token.ErrInvalid) || errors.Is(p, token.ErrExpired) || errors.Is(p, token.ErrRevoked) {
		h.Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	}
}

// Errors for an Authorization header without an access token. Another token would not help,
// so the challenge has no error (RFC 6750, 3.1).
var (
	errBasic  = unauthenticated("Basic authentication is not supported. Sign in (POST /api/v1/auth/login), then send the access token as Authorization: Bearer TOKEN.")
	errScheme = unauthenticated("Unsupported authentication scheme. Send the access token as Authorization: Bearer TOKEN.")
	errBearer = unauthenticated("Malformed Authorization header. Send it once, as Authorization: Bearer TOKEN.")
)

func unauthenticated(message string) *problem.Problem {
	p := *problem.ErrUnauthenticated
	p.Message = message
	return &p
}

// Bearer returns the token in the Authorization header (RFC 6750, 2.1).
func Bearer(r *http.Request) (string, error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return "", problem.ErrUnauthenticated
	}
	parts := strings.Fields(values[0])
	switch {
	case len(values) > 1 || len(parts) == 0:
		return "", errBearer
	case strings.EqualFold(parts[0], "Basic"):
		return "", errBasic
	case !strings.EqualFold(parts[0], "Bearer"):
		return "", errScheme
	case len(parts) != 2:
		return "", errBearer
	}
	return parts[1], nil
}

// Caller returns the identity of the caller. It panics on a public route, which is a
// mistake in the routing table.
func Caller(r *http.Request) token.Identity {
	identity, ok := token.From(r.Context())
	if !ok {
		panic(fmt.Sprintf("no caller: %s is public", r.URL.Path))
	}
	return identity
}
