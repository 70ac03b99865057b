package api

import (
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/ratelimit"
	"github.com/headgate/headgate/services/gateway/internal/upstream"
)

// rateLimitsPath is where an administrator lists and resets rate limit counters.
const rateLimitsPath = "/api/v1/auth/rate-limits"

type rateLimit struct {
	Policy        string    `json:"policy"`
	Limit         int       `json:"limit"`
	WindowSeconds int       `json:"windowSeconds"`
	Observed      bool      `json:"observed"`
	Used          int       `json:"used"`
	Remaining     int       `json:"remaining"`
	ResetAt       time.Time `json:"resetAt"`
	Backend       string    `json:"backend"`
}

type cleared struct {
	Cleared int `json:"cleared"`
}

// selection holds the counters that a query selects.
type selection struct {
	keys []ratelimit.Key
	tags []string // of keys
	by   []string // the names of the parameters
}

// rateLimits lists the counters of a subject (GET) or resets them (DELETE). auth-service
// decides whether the caller may, and records it in the audit log.
func (l *rateLimiter) rateLimits(auth *upstream.Service) http.Handler {
	return handler(func(w http.ResponseWriter, r *http.Request) error {
		web.SetRoute(r.Context(), rateLimitsPath)
		if err := l.checkNetwork(w, r); err != nil {
			return err
		}
		switch r.Method {
		case http.MethodGet, http.MethodHead, http.MethodDelete:
		default:
			w.Header().Set("Allow", "DELETE, GET, HEAD")
			return problem.ErrMethod
		}
		selected, fault := l.selectCounters(r)
		question := report{path: event.RateLimitsPath + "/read", header: reportHeader(r), body: struct{}{}}
		if r.Method == http.MethodDelete && fault == nil {
			names := []string{}
			for _, key := range selected.keys {
				names = append(names, key.Policy.Name)
			}
			question.path, question.body = event.RateLimitsPath+"/cleared", event.RateLimitCleared{Policies: names, By: selected.by}
		}
		res, err := postReport(r.Context(), auth, question)
		if err != nil {
			failUpstream(w, r, err)
			return nil
		}
		defer res.Body.Close()
		if res.StatusCode >= http.StatusMultipleChoices {
			copyResponse(w, r, res)
			return nil
		}
		switch {
		case fault != nil:
			return fault
		case r.Method == http.MethodDelete:
			return l.clear(w, r, selected)
		}
		return l.list(w, r, selected)
	})
}

func (l *rateLimiter) list(w http.ResponseWriter, r *http.Request, selected selection) error {
	found := []rateLimit{}
	for i, key := range selected.keys {
		state := l.limiter.Peek(r.Context(), selected.tags[i], key)
		rate := key.Policy.Rate
		found = append(found, rateLimit{
			Policy: key.Policy.Name, Limit: rate.Requests, WindowSeconds: int(rate.Window.Seconds()), Observed: rate.Observe,
			Used: state.Used, Remaining: max(0, rate.Requests-state.Used), ResetAt: l.now().Add(state.Reset).UTC().Truncate(time.Second), Backend: state.Backend,
		})
	}
	return web.OK(w, http.StatusOK, found)
}

func (l *rateLimiter) clear(w http.ResponseWriter, r *http.Request, selected selection) error {
	n := 0
	for i, key := range selected.keys {
		had, err := l.limiter.Clear(r.Context(), selected.tags[i], key)
		if err != nil {
			return err
		}
		if had {
			n++
		}
	}
	return web.OK(w, http.StatusOK, cleared{n})
}

// selectCounters returns the counters of all policies whose key the query of r names.
func (l *rateLimiter) selectCounters(r *http.Request) (selection, error) {
	var selected selection
	s, wanted, faults := readSubject(r, &selected)
	known := false
	for _, p := range l.policies {
		if wanted != "" && wanted != p.Name {
			continue
		}
		known = true
		if key, tag, ok := p.keyOf(s); ok && !key.Policy.Rate.Off() {
			selected.keys, selected.tags = append(selected.keys, key), append(selected.tags, tag)
		}
	}
	if !known {
		faults = append(faults, problem.Field{Field: "policy", Code: "unknown", Message: "Unknown policy."})
	}
	if len(faults) == 0 && len(selected.keys) == 0 {
		faults = append(faults, problem.Field{Field: "ip", Code: "required", Message: "Specify whose counters to use: ip (for login also account, for refresh also session, for proof also userId), or userId for general."})
	}
	if len(faults) > 0 {
		return selection{}, problem.Validation(faults...)
	}
	slices.Sort(selected.by)
	return selected, nil
}

var rateLimitParameters = web.Takes("policy", "ip", "account", "session", "userId")

// readSubject reads the query of r, and notes in selected which parameters it has.
func readSubject(r *http.Request, selected *selection) (s subject, policy string, faults []problem.Field) {
	s = subject{}
	query, err := rateLimitParameters.Read(r)
	if err != nil {
		return s, "", problem.From(err).Fields
	}
	for name, value := range query {
		selected.by = append(selected.by, name)
		switch name {
		case "policy":
			policy = value
		case "ip":
			addr, err := netip.ParseAddr(value)
			if err != nil || addr.Zone() != "" {
				faults = append(faults, problem.Field{Field: "ip", Code: "invalid_format", Message: "Invalid IP address: use an IPv4 or IPv6 address."})
				continue
			}
			s[network] = event.Origin{IP: addr.Unmap().String()}.Network()
		case "account":
			s[account] = accountKey(value)
		case "session":
			s[session] = value
		case "userId":
			s[user] = value
		}
	}
	return s, policy, faults
}
