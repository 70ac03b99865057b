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
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/services/gateway/internal/ratelimit"
)

// Limits are the rates of the gateway's policies.
type Limits struct {
	Login     ratelimit.Rate // for each account and address
	LoginIP   ratelimit.Rate
	Refresh   ratelimit.Rate // for each session and address
	RefreshIP ratelimit.Rate
	SignupIP  ratelimit.Rate
	Mail      ratelimit.Rate // for each address, by either way of asking for one
	General   ratelimit.Rate // for each user
	GeneralIP ratelimit.Rate // for each address
}

// ErrRateLimited says that a limit is reached.
var ErrRateLimited = problem.New(problem.TooManyRequests, "rate_limited", "Too many requests. Try again later.")

// party is whom a request is counted for; what is not known of it is empty.
type party struct {
	network string // see event.Origin.Network
	account string // in the form in which two spellings of an address are one
	session string
	userID  string
}

// policy is a line of the table of limits.
type policy struct {
	name   string
	rate   func(Limits) ratelimit.Rate
	routes []string               // the POST routes that it counts; none for the general ones
	who    func(p party) []string // the parts of a party that are counted together
}

// policies are the whole of what is counted. What a body names is counted for each
// address apart: nobody has proved yet that the name is theirs to use up.
var policies = []policy{
	{"login", func(l Limits) ratelimit.Rate { return l.Login }, []string{"/api/v1/auth/login"}, func(p party) []string { return []string{p.network, p.account} }},
	{"login-ip", func(l Limits) ratelimit.Rate { return l.LoginIP }, []string{"/api/v1/auth/login"}, func(p party) []string { return []string{p.network} }},
	{"refresh", func(l Limits) ratelimit.Rate { return l.Refresh }, []string{"/api/v1/auth/refresh"}, func(p party) []string { return []string{p.network, p.session} }},
	{"refresh-ip", func(l Limits) ratelimit.Rate { return l.RefreshIP }, []string{"/api/v1/auth/refresh"}, func(p party) []string { return []string{p.network} }},
	{"signup", func(l Limits) ratelimit.Rate { return l.SignupIP }, []string{"/api/v1/auth/signup"}, func(p party) []string { return []string{p.network} }},
	{"mail", func(l Limits) ratelimit.Rate { return l.Mail }, []string{"/api/v1/auth/forgot-password", "/api/v1/auth/resend-verification"}, func(p party) []string { return []string{p.network} }},
	{"general", func(l Limits) ratelimit.Rate { return l.General }, nil, func(p party) []string { return []string{p.userID} }},
	{"general-ip", func(l Limits) ratelimit.Rate { return l.GeneralIP }, nil, func(p party) []string { return []string{p.network} }},
}

// key returns what p is counted by, and the tag that it shares with the other keys
// of a request; ok is false if p has not what it takes.
func (p policy) key(l Limits, of party) (key ratelimit.Key, tag string, ok bool) {
	parts := p.who(of)
	if slices.Contains(parts, "") {
		return ratelimit.Key{}, "", false
	}
	return ratelimit.Key{Policy: ratelimit.Policy{Name: p.name, Rate: p.rate(l)}, Subject: strings.Join(parts, " ")}, parts[0], true
}

// limiting counts a request before it goes on.
type limiting struct {
	limiter *ratelimit.Limiter
	limits  Limits
	reports *Reports
	now     func() time.Time
}

// admitAddress counts r against the general limit of its address, before anything
// is done for it.
func (l *limiting) admitAddress(w http.ResponseWriter, r *http.Request) error {
	network := event.OriginFrom(r.Context()).Network()
	return l.lease(w, r, ratelimit.Key{Policy: ratelimit.Policy{Name: "general-ip", Rate: l.limits.GeneralIP}, Subject: network})
}

// admitUser counts r against the general limit of who is signed in.
func (l *limiting) admitUser(w http.ResponseWriter, r *http.Request, userID string) error {
	return l.lease(w, r, ratelimit.Key{Policy: ratelimit.Policy{Name: "general", Rate: l.limits.General}, Subject: userID})
}

func (l *limiting) lease(w http.ResponseWriter, r *http.Request, key ratelimit.Key) error {
	if d, ok := l.limiter.TakeLease(r.Context(), key); ok && !d.Allowed {
		return l.refuse(w, r, d, key.Subject)
	}
	return nil
}

// countedMember returns the name of the member of r's body that the limits of its route
// count by; it is empty if there is none.
func countedMember(r *http.Request) string {
	switch {
	case r.Method != http.MethodPost:
		return ""
	case r.URL.Path == "/api/v1/auth/login":
		return "email"
	case r.URL.Path == "/api/v1/auth/refresh":
		return "refreshToken"
	}
	return ""
}

// admitRoute counts r against the limits of its route. value is that of its
// countedMember.
func (l *limiting) admitRoute(w http.ResponseWriter, r *http.Request, value string) error {
	if r.Method != http.MethodPost {
		return nil
	}
	var keys []ratelimit.Key
	of := party{network: event.OriginFrom(r.Context()).Network()}
	switch r.URL.Path {
	case "/api/v1/auth/login":
		of.account = accountKey(value)
	case "/api/v1/auth/refresh":
		of.session = sessionOf(value)
	}
	for _, p := range policies {
		for _, route := range p.routes {
			if key, _, ok := p.key(l.limits, of); ok && route == r.URL.Path {
				keys = append(keys, key)
			}
		}
	}
	if len(keys) == 0 {
		return nil
	}
	d, ok := l.limiter.Take(r.Context(), of.network, keys...)
	if !ok {
		return nil
	}
	if !d.Allowed {
		return l.refuse(w, r, d, fmt.Sprint(of))
	}
	l.show(w.Header(), d)
	return nil
}

func (l *limiting) refuse(w http.ResponseWriter, r *http.Request, d ratelimit.Decision, who string) error {
	l.show(w.Header(), d)
	l.reports.exceeded(r, d, who)
	return ErrRateLimited.WithRetryAfter(d.Reset)
}

// show tells the client where it stands, as draft-ietf-httpapi-ratelimit-headers
// has it and as express-rate-limit does.
func (l *limiting) show(h http.Header, d ratelimit.Decision) {
	seconds := max(1, int(math.Ceil(d.Reset.Seconds())))
	h.Set("RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=%d", d.Policy.Name, d.Policy.Rate.Requests, int(d.Policy.Rate.Window.Seconds())))
	h.Set("RateLimit", fmt.Sprintf("%q;r=%d;t=%d", d.Policy.Name, d.Remaining, seconds))
	h.Set("X-RateLimit-Limit", strconv.Itoa(d.Policy.Rate.Requests))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(d.Remaining))
	h.Set("X-RateLimit-Reset", strconv.FormatInt(l.now().Add(d.Reset).Unix()+1, 10))
}

// accountKey returns the form of an email address in which two spellings of it are one.
func accountKey(email string) string { return strings.ToLower(strings.TrimSpace(email)) }

// sessionOf returns the session that a refresh token names, unverified: whoever makes
// sessions up is counted by address. A token that names none stands for itself.
func sessionOf(refreshToken string) string {
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
