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

// rateLimitsPath is where an administrator sees and clears what is counted.
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

// selection is what the query of a request names.
type selection struct {
	keys []ratelimit.Key
	tags []string // of keys
	by   []string // the names of the parameters
}

// rateLimits answers what is counted of a party (GET), or forgets it (DELETE). Who
// may do that is for auth-service to say, which writes it down as well.
func (l *limiting) rateLimits(auth *upstream.Service) http.Handler {
	return handler(func(w http.ResponseWriter, r *http.Request) error {
		web.SetRoute(r.Context(), rateLimitsPath)
		if err := l.admitAddress(w, r); err != nil {
			return err
		}
		switch r.Method {
		case http.MethodGet, http.MethodHead, http.MethodDelete:
		default:
			w.Header().Set("Allow", "DELETE, GET, HEAD")
			return problem.ErrMethod
		}
		about, fault := l.selected(r)
		told := report{path: event.RateLimitsPath + "/read", header: reportHeader(r), body: struct{}{}}
		if r.Method == http.MethodDelete && fault == nil {
			names := []string{}
			for _, key := range about.keys {
				names = append(names, key.Policy.Name)
			}
			told.path, told.body = event.RateLimitsPath+"/cleared", event.RateLimitCleared{Policies: names, By: about.by}
		}
		res, err := ask(r.Context(), auth, told)
		if err != nil {
			failed(w, r, err)
			return nil
		}
		defer res.Body.Close()
		if res.StatusCode >= http.StatusMultipleChoices {
			answer(w, r, res)
			return nil
		}
		switch {
		case fault != nil:
			return fault
		case r.Method == http.MethodDelete:
			return l.clear(w, r, about)
		}
		return l.list(w, r, about)
	})
}

func (l *limiting) list(w http.ResponseWriter, r *http.Request, about selection) error {
	found := []rateLimit{}
	for i, key := range about.keys {
		state := l.limiter.Peek(r.Context(), about.tags[i], key)
		rate := key.Policy.Rate
		found = append(found, rateLimit{
			Policy: key.Policy.Name, Limit: rate.Requests, WindowSeconds: int(rate.Window.Seconds()), Observed: rate.Observe,
			Used: state.Used, Remaining: max(0, rate.Requests-state.Used), ResetAt: l.now().Add(state.Reset).UTC().Truncate(time.Second), Backend: state.Backend,
		})
	}
	return web.OK(w, http.StatusOK, found)
}

func (l *limiting) clear(w http.ResponseWriter, r *http.Request, about selection) error {
	n := 0
	for i, key := range about.keys {
		had, err := l.limiter.Clear(r.Context(), about.tags[i], key)
		if err != nil {
			return err
		}
		if had {
			n++
		}
	}
	return web.OK(w, http.StatusOK, cleared{n})
}

var rateLimitParameters = []string{"policy", "ip", "account", "session", "userId"}

// selected returns the keys of the policies that the query of r has the parts for.
func (l *limiting) selected(r *http.Request) (selection, error) {
	var of party
	var about selection
	var faults []problem.Field
	policy := ""
	for name, values := range r.URL.Query() {
		if !slices.Contains(rateLimitParameters, name) || len(values) != 1 || values[0] == "" {
			faults = append(faults, problem.Field{Field: name, Code: "unknown_parameter", Message: "Not a parameter that may be here, once and with a value."})
			continue
		}
		about.by = append(about.by, name)
		switch value := values[0]; name {
		case "policy":
			policy = value
		case "ip":
			addr, err := netip.ParseAddr(value)
			if err != nil || addr.Zone() != "" {
				faults = append(faults, problem.Field{Field: "ip", Code: "invalid_format", Message: "Want an IPv4 or IPv6 address."})
				continue
			}
			of.network = event.Origin{IP: addr.Unmap().String()}.Network()
		case "account":
			of.account = accountKey(value)
		case "session":
			of.session = value
		case "userId":
			of.userID = value
		}
	}
	known := false
	for _, p := range policies {
		if policy != "" && policy != p.name {
			continue
		}
		known = true
		if key, tag, ok := p.key(l.limits, of); ok && !key.Policy.Rate.Off() {
			about.keys, about.tags = append(about.keys, key), append(about.tags, tag)
		}
	}
	if !known {
		faults = append(faults, problem.Field{Field: "policy", Code: "unknown", Message: "There is no policy of this name."})
	}
	if len(faults) == 0 && len(about.keys) == 0 {
		faults = append(faults, problem.Field{Field: "ip", Code: "required", Message: "Name who is counted: ip, for login also account, for refresh also session, for general userId."})
	}
	slices.Sort(about.by)
	if len(faults) > 0 {
		return selection{}, problem.Validation(faults...)
	}
	return about, nil
}
