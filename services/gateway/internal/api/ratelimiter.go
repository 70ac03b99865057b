package api

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/mailaddr"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/services/gateway/internal/ratelimit"
)

// ErrRateLimited says that a rate limit was exceeded.
var ErrRateLimited = problem.New(problem.TooManyRequests, "rate_limited", "Too many requests. Try again later.")

// rateLimiter counts requests against the policies before they go on.
type rateLimiter struct {
	limiter  *ratelimit.Limiter
	policies []policy
	network  ratelimit.Policy // of every request
	user     ratelimit.Policy // of every authenticated request
	routes   map[string]limitedRoute
	reports  *Reports
	now      func() time.Time
}

func newRateLimiter(cfg Config) *rateLimiter {
	policies := cfg.RateLimits.policies()
	return &rateLimiter{
		limiter: cfg.Limiter, policies: policies, reports: cfg.Reports, now: cfg.Now,
		network: everyRequest(policies, network), user: everyRequest(policies, user), routes: limitedRoutes(policies),
	}
}

// checkNetwork counts r against the general limit of its network, before any other work
// is done for it.
func (l *rateLimiter) checkNetwork(w http.ResponseWriter, r *http.Request) error {
	return l.checkLeased(w, r, ratelimit.Key{Policy: l.network, Subject: event.OriginFrom(r.Context()).Network()})
}

// checkUser counts r against the general limit of the signed-in user.
func (l *rateLimiter) checkUser(w http.ResponseWriter, r *http.Request, userID string) error {
	return l.checkLeased(w, r, ratelimit.Key{Policy: l.user, Subject: userID})
}

func (l *rateLimiter) checkLeased(w http.ResponseWriter, r *http.Request, key ratelimit.Key) error {
	if d, ok := l.limiter.TakeLease(r.Context(), key); ok && !d.Allowed {
		return l.reject(w, r, d, key)
	}
	return nil
}

// routeOf returns the policies of the route of r, whose path has a pattern.
func (l *rateLimiter) routeOf(r *http.Request, pattern string) limitedRoute {
	return l.routes[r.Method+" "+pattern]
}

// checkRoute counts r against the policies of its route. userID is empty if nobody is signed
// in, and value is that of the route's bodyMember.
func (l *rateLimiter) checkRoute(w http.ResponseWriter, r *http.Request, route limitedRoute, userID, value string) error {
	if len(route.policies) == 0 {
		return nil
	}
	s := subject{network: event.OriginFrom(r.Context()).Network(), user: userID}
	if route.part != "" {
		s[route.part] = bodyParts[route.part].read(value)
	}
	var keys []ratelimit.Key
	for _, p := range route.policies {
		if key, _, ok := p.keyOf(s); ok {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	d, ok := l.limiter.Take(r.Context(), s[network], keys...)
	if !ok {
		return nil
	}
	if !d.Allowed {
		exceeded := slices.IndexFunc(keys, func(k ratelimit.Key) bool { return k.Policy == d.Policy })
		return l.reject(w, r, d, keys[exceeded])
	}
	l.setHeaders(w.Header(), d)
	return nil
}

func (l *rateLimiter) reject(w http.ResponseWriter, r *http.Request, d ratelimit.Decision, exceeded ratelimit.Key) error {
	l.setHeaders(w.Header(), d)
	l.reports.exceeded(r, exceeded)
	return ErrRateLimited.WithRetryAfter(d.Reset)
}

// setHeaders tells the client how much of the limit is left, as
// draft-ietf-httpapi-ratelimit-headers and as express-rate-limit do.
func (l *rateLimiter) setHeaders(h http.Header, d ratelimit.Decision) {
	seconds := max(1, int(math.Ceil(d.Reset.Seconds())))
	h.Set("RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=%d", d.Policy.Name, d.Policy.Rate.Requests, int(d.Policy.Rate.Window.Seconds())))
	h.Set("RateLimit", fmt.Sprintf("%q;r=%d;t=%d", d.Policy.Name, d.Remaining, seconds))
	h.Set("X-RateLimit-Limit", strconv.Itoa(d.Policy.Rate.Requests))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(d.Remaining))
	h.Set("X-RateLimit-Reset", strconv.FormatInt(l.now().Add(d.Reset).Unix()+1, 10))
}

// maxRefreshToken is the longest refresh token that auth-service accepts, in bytes.
const maxRefreshToken = 2 << 10

// accountKey returns the key of an email address, as auth-service does. It is empty for any
// other text: auth-service rejects the request, which is counted by network.
func accountKey(email string) string {
	address, _ := mailaddr.Parse(email)
	return address.Key
}

// sessionOf returns the session that a refresh token names, unverified: a client that
// makes sessions up is counted by network. A token that names none stands for itself. One
// that is too long, which auth-service rejects, stands for nothing.
func sessionOf(refreshToken string) string {
	if len(refreshToken) > maxRefreshToken {
		return ""
	}
	parts := strings.Split(refreshToken, ".")
	if len(parts) != 3 {
		return refreshToken
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return refreshToken
	}
	var claims struct {
		SessionID string `json:"sid"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.SessionID == "" {
		return refreshToken
	}
	return claims.SessionID
}
