package api

import (
	"reflect"
	"slices"
	"strings"

	"github.com/headgate/headgate/services/gateway/internal/ratelimit"
)

// RateLimits is the table of the gateway's rate limits, and the only place that defines
// them. A field's tags are the columns of its row: the name of the policy, the routes of
// the API document that it applies to, separated by commas (* for every request), the parts
// of a subject that it counts by, and the environment variable with its default and
// description.
type RateLimits struct {
	Login       ratelimit.Rate `policy:"login" routes:"POST /api/v1/auth/login" key:"network account" envconfig:"LOGIN_RATE_LIMIT" default:"5/15m" desc:"Logins per account and client address: requests/window, or off. With observe after a space, the limit only reports what it would reject. Successful requests count, too."`
	LoginIP     ratelimit.Rate `policy:"login-ip" routes:"POST /api/v1/auth/login" key:"network" envconfig:"LOGIN_IP_RATE_LIMIT" default:"40/15m" desc:"Logins per client address."`
	Refresh     ratelimit.Rate `policy:"refresh" routes:"POST /api/v1/auth/refresh" key:"network session" envconfig:"REFRESH_RATE_LIMIT" default:"10/15m" desc:"Refreshes per session and client address."`
	RefreshIP   ratelimit.Rate `policy:"refresh-ip" routes:"POST /api/v1/auth/refresh" key:"network" envconfig:"REFRESH_IP_RATE_LIMIT" default:"300/15m" desc:"Refreshes per client address."`
	SignupIP    ratelimit.Rate `policy:"signup" routes:"POST /api/v1/auth/signup" key:"network" envconfig:"SIGNUP_RATE_LIMIT" default:"100/15m" desc:"Sign-ups per client address."`
	Mail        ratelimit.Rate `policy:"mail" routes:"POST /api/v1/auth/forgot-password,POST /api/v1/auth/resend-verification" key:"network" envconfig:"MAIL_RATE_LIMIT" default:"20/15m" desc:"Requests for a password reset or verification email, per client address."`
	Links       ratelimit.Rate `policy:"links" routes:"POST /api/v1/auth/verify-email,POST /api/v1/auth/verify-email/take-over,POST /api/v1/auth/verify-email/reject,POST /api/v1/auth/reset-password,POST /api/v1/auth/change-email/confirm,POST /api/v1/auth/change-email/revert" key:"network" envconfig:"LINKS_RATE_LIMIT" default:"60/15m" desc:"Uses of mailed links, per client address."`
	MFA         ratelimit.Rate `policy:"mfa" routes:"POST /api/v1/auth/mfa/challenge" key:"network" envconfig:"MFA_RATE_LIMIT" default:"60/15m" desc:"Second steps of logins, per client address."`
	Passkeys    ratelimit.Rate `policy:"passkeys" routes:"POST /api/v1/auth/passkeys/login,POST /api/v1/auth/passkeys/login/finish" key:"network" envconfig:"PASSKEYS_RATE_LIMIT" default:"120/15m" desc:"Requests to sign in with a passkey, per client address. A login takes two, and pages may begin one that nobody finishes."`
	Proof       ratelimit.Rate `policy:"proof" routes:"POST /api/v1/auth/reauthenticate,POST /api/v1/auth/reauthenticate/mail,POST /api/v1/auth/reauthenticate/passkey/finish,POST /api/v1/auth/mfa/totp/{id}/verify,POST /api/v1/auth/mfa/recovery-codes,POST /api/v1/auth/passkeys,POST /api/v1/auth/passkeys/finish,DELETE /api/v1/auth/password,POST /api/v1/auth/change-password,POST /api/v1/auth/change-email,POST /api/v1/auth/change-email/confirm,POST /api/v1/auth/change-email/revert,POST /api/v1/auth/verify-email,DELETE /api/v1/auth/account,DELETE /api/v1/auth/mfa/totp/{id},DELETE /api/v1/auth/passkeys/{id}" key:"network user" envconfig:"PROOF_RATE_LIMIT" default:"20/15m" desc:"Requests in which a signed-in user proves their identity or adds a factor, per user and client address."`
	ChangeEmail ratelimit.Rate `policy:"change-email" routes:"POST /api/v1/auth/change-email" key:"network user" envconfig:"CHANGE_EMAIL_RATE_LIMIT" default:"10/1h" desc:"Requests for a new email address, per user and client address."`
	Export      ratelimit.Rate `policy:"export" routes:"GET /api/v1/user/me/export,POST /api/v1/user/me/export" key:"user" envconfig:"EXPORT_RATE_LIMIT" default:"6/1h" desc:"Exports of a user's data, per user."`
	ExportLink  ratelimit.Rate `policy:"export-link" routes:"GET /api/v1/user/export" key:"network" envconfig:"EXPORT_LINK_RATE_LIMIT" default:"30/15m" desc:"Downloads of exports through mailed links, per client address."`
	Realtime    ratelimit.Rate `policy:"realtime" routes:"POST /api/v1/realtime/ticket,GET /api/v1/realtime/events" key:"network user" envconfig:"REALTIME_RATE_LIMIT" default:"60/1m" desc:"Real-time connections that a signed-in user opens, per user and client address."`
	Avatar      ratelimit.Rate `policy:"avatar" routes:"PUT /api/v1/user/me/avatar" key:"user" envconfig:"AVATAR_RATE_LIMIT" default:"20/1h" desc:"Uploads of avatars per signed-in user."`
	General     ratelimit.Rate `policy:"general" routes:"*" key:"user" envconfig:"GENERAL_RATE_LIMIT" default:"1200/1m" desc:"Requests per signed-in user."`
	GeneralIP   ratelimit.Rate `policy:"general-ip" routes:"*" key:"network" envconfig:"GENERAL_IP_RATE_LIMIT" default:"6000/1m" desc:"Requests per client address, authenticated or not."`
}

// subject is the client that a request is counted for, as far as the parts below are
// known. Account and session come from the body and are not verified yet, so their
// policies count per network as well: no client can use up the limit of another.
type subject map[string]string

// The parts of a subject.
const (
	network = "network" // see event.Origin.Network
	account = "account" // see accountKey
	session = "session" // see sessionOf
	user    = "user"    // the user's id
)

// bodyParts are the parts of a subject that a request's body names: in which member, and
// how to read its value.
var bodyParts = map[string]struct {
	member string
	read   func(value string) string
}{
	account: {"email", accountKey},
	session: {"refreshToken", sessionOf},
}

// policy is a row of RateLimits.
type policy struct {
	ratelimit.Policy

	routes []string
	key    []string // parts of a subject
}

// policies returns the rows of the table, in its order.
func (l RateLimits) policies() []policy {
	var all []policy
	for field, value := range reflect.ValueOf(l).Fields() {
		rate, _ := reflect.TypeAssert[ratelimit.Rate](value)
		all = append(all, policy{
			Policy: ratelimit.Policy{Name: field.Tag.Get("policy"), Rate: rate},
			routes: strings.Split(field.Tag.Get("routes"), ","),
			key:    strings.Fields(field.Tag.Get("key")),
		})
	}
	return all
}

// keyOf returns the key by which s is counted, and the tag that it shares with the other
// keys of a request; ok is false if a part of s is not known.
func (p policy) keyOf(s subject) (key ratelimit.Key, tag string, ok bool) {
	parts := make([]string, len(p.key))
	for i, name := range p.key {
		parts[i] = s[name]
	}
	if slices.Contains(parts, "") {
		return ratelimit.Key{}, "", false
	}
	return ratelimit.Key{Policy: p.Policy, Subject: strings.Join(parts, " ")}, parts[0], true
}

// everyRequest returns the policy that counts every request by one part of its subject.
func everyRequest(policies []policy, part string) ratelimit.Policy {
	for _, p := range policies {
		if slices.Equal(p.routes, []string{"*"}) && slices.Equal(p.key, []string{part}) {
			return p.Policy
		}
	}
	return ratelimit.Policy{}
}

// limitedRoute is what the policies of one route need.
type limitedRoute struct {
	policies []policy
	part     string // that the body names; empty if none is needed
}

// bodyMember returns the name of the member of the body that the policies count by; it is
// empty if there is none.
func (l limitedRoute) bodyMember() string { return bodyParts[l.part].member }

// limitedRoutes returns the routes with policies of their own by their methods and patterns.
func limitedRoutes(policies []policy) map[string]limitedRoute {
	routes := map[string]limitedRoute{}
	for _, p := range policies {
		for _, name := range p.routes {
			route := routes[name]
			route.policies = append(route.policies, p)
			for _, part := range p.key {
				if _, ok := bodyParts[part]; ok {
					route.part = part
				}
			}
			routes[name] = route
		}
	}
	delete(routes, "*")
	return routes
}
