package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/limit"
)

// Limits are the rates of the gateway's policies.
type Limits struct {
	Login     limit.Rate // for each account and address
	LoginIP   limit.Rate
	Refresh   limit.Rate // for each session and address
	RefreshIP limit.Rate
	SignupIP  limit.Rate
	Mail      limit.Rate // for each address, by either way of asking for one
	General   limit.Rate // for each user or address, on this gateway
}

// ErrRateLimited says that a limit is reached.
var ErrRateLimited = problem.New(problem.TooManyRequests, "rate_limited", "Too many requests. Try again later.")

// limiting counts a request before it goes on.
type limiting struct {
	limiter *limit.Limiter
	limits  Limits
	now     func() time.Time
}

// admit counts r against the limits of its route and the general one, and
// returns ErrRateLimited if one is reached. It may read the body, and puts it back.
func (l *limiting) admit(w http.ResponseWriter, r *http.Request, userID string) error {
	address := event.OriginFrom(r.Context()).Network()
	who := userID
	if who == "" {
		who = address
	}
	general := limit.Key{Policy: limit.Policy{Name: "general", Rate: l.limits.General}, Who: who}
	if d, ok := l.limiter.TakeLocal(general); ok && !d.Allowed {
		return l.refuse(w, d)
	}
	keys, err := l.keys(w, r, address)
	if err != nil || len(keys) == 0 {
		return err
	}
	d, ok := l.limiter.Take(r.Context(), address, keys...)
	if !ok {
		return nil
	}
	if !d.Allowed {
		return l.refuse(w, d)
	}
	l.show(w.Header(), d)
	return nil
}

func (l *limiting) keys(w http.ResponseWriter, r *http.Request, address string) ([]limit.Key, error) {
	if r.Method != http.MethodPost {
		return nil, nil
	}
	byAddress := func(name string, rate limit.Rate) limit.Key {
		return limit.Key{Policy: limit.Policy{Name: name, Rate: rate}, Who: address}
	}
	switch r.URL.Path {
	case "/api/v1/auth/login":
		body, err := peek(w, r)
		return append(byName("login", l.limits.Login, address, loginAccount(body)), byAddress("login-ip", l.limits.LoginIP)), err
	case "/api/v1/auth/refresh":
		body, err := peek(w, r)
		return append(byName("refresh", l.limits.Refresh, address, refreshSession(body)), byAddress("refresh-ip", l.limits.RefreshIP)), err
	case "/api/v1/auth/signup":
		return []limit.Key{byAddress("signup", l.limits.SignupIP)}, nil
	case "/api/v1/auth/forgot-password", "/api/v1/auth/resend-verification":
		return []limit.Key{byAddress("mail", l.limits.Mail)}, nil
	}
	return nil, nil
}

// byName returns the key of what a body names, for each address apart: nobody has
// proved yet that the name is theirs to use up. A body that names nothing has
// none, or all of those would be counted as one.
func byName(policy string, rate limit.Rate, address, name string) []limit.Key {
	if name == "" {
		return nil
	}
	return []limit.Key{{Policy: limit.Policy{Name: policy, Rate: rate}, Who: address + " " + name}}
}

func (l *limiting) refuse(w http.ResponseWriter, d limit.Decision) error {
	l.show(w.Header(), d)
	return ErrRateLimited.WithRetryAfter(d.Reset)
}

// show tells the client where it stands, as draft-ietf-httpapi-ratelimit-headers
// has it and as express-rate-limit does.
func (l *limiting) show(h http.Header, d limit.Decision) {
	seconds := max(1, int(math.Ceil(d.Reset.Seconds())))
	h.Set("RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=%d", d.Policy.Name, d.Policy.Rate.Requests, int(d.Policy.Rate.Window.Seconds())))
	h.Set("RateLimit", fmt.Sprintf("%q;r=%d;t=%d", d.Policy.Name, d.Remaining, seconds))
	h.Set("X-RateLimit-Limit", strconv.Itoa(d.Policy.Rate.Requests))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(d.Remaining))
	h.Set("X-RateLimit-Reset", strconv.FormatInt(l.now().Add(d.Reset).Unix()+1, 10))
}

// peek reads the body and puts it back.
func peek(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, web.MaxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, problem.ErrTooLarge
	}
	if err != nil {
		return nil, fmt.Errorf("read body: %w: %w", err, problem.ErrMalformedBody)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	r.TransferEncoding = nil
	return body, nil
}

// loginAccount returns the account that a login is for, in the form in which two
// spellings of an address are one, or nothing if there is none to be read.
func loginAccount(body []byte) string {
	var in struct {
		Email string `json:"email"`
	}
	if json.Unmarshal(body, &in) != nil {
		return ""
	}
	return strings.ToLower(strings.TrimSpace(in.Email))
}

// refreshSession returns the session that a refresh token names, unchecked: who
// makes sessions up is counted by address. Without one it is the token itself, and
// nothing without that.
func refreshSession(body []byte) string {
	var in struct {
		RefreshToken string `json:"refreshToken"`
	}
	if json.Unmarshal(body, &in) != nil {
		return ""
	}
	parts := strings.Split(in.RefreshToken, ".")
	if len(parts) != 3 {
		return in.RefreshToken
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return in.RefreshToken
	}
	var claims struct {
		SessionID string `json:"sid"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.SessionID == "" {
		return in.RefreshToken
	}
	return claims.SessionID
}
