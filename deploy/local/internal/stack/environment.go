package stack

import (
	"maps"
	"slices"
	"strings"
)

// wiring are the variables that only the launcher sets. If the caller has set one, it is
// meant for the launcher, or for another stack.
var wiring = []string{
	"DATABASE_URL", "DATABASE_URL_FILE", "REDIS_URL", "REDIS_URL_FILE", "HTTP_ADDR", "OPS_ADDR", "INSTANCE_ID", "LOCAL_DIR",
	"JWKS_URL", "AUTH_URL", "USER_URL", "EMAIL_URL", "AUDIT_URL", "GATEWAY_PORT", "GATEWAY_HOST",
}

// environment is a set of variables.
type environment map[string]string

func parseEnvironment(variables []string) environment {
	e := environment{}
	for _, variable := range variables {
		name, value, _ := strings.Cut(variable, "=")
		e[name] = value
	}
	return e
}

// list returns the variables as name=value, sorted.
func (e environment) list() []string {
	list := make([]string, 0, len(e))
	for _, name := range slices.Sorted(maps.Keys(e)) {
		list = append(list, name+"="+e[name])
	}
	return list
}

// preset sets the variable unless the caller has set it.
func (e environment) preset(name, value string) {
	if e[name] == "" {
		e[name] = value
	}
}

// addresses are those of a service's listeners.
type addresses struct{ http, ops string }

// plan is what the services need to know about each other.
type plan struct {
	listen    map[string]addresses // by service
	databases map[string]string    // URLs, by database
	redis     string
	smtp      string
	public    string // the public URL of the gateway
	admin     Admin
}

// serviceURLs returns the URLs of the services, by name.
func (p plan) serviceURLs() map[string]string {
	urls := map[string]string{}
	for name, at := range p.listen {
		urls[name] = "http://" + at.http
	}
	return urls
}

// environmentOf returns the environment of a service: that of the caller, with the wiring
// replaced.
func (s *stack) environmentOf(svc service, p plan) environment {
	e := maps.Clone(s.caller)
	for _, name := range wiring {
		delete(e, name)
	}
	e.preset("ENV", "development")
	s.preset(e, "DRAIN_DELAY", "0s") // No load balancer has to notice that the instance stops.
	if s.terminal {
		e.preset("LOG_FORMAT", "text")
	}
	e["LOCAL_DIR"] = s.cfg.Dir
	e["INSTANCE_ID"] = svc.name + "-1"
	e["HTTP_ADDR"] = p.listen[svc.name].http
	e["OPS_ADDR"] = p.listen[svc.name].ops
	e["REDIS_URL"] = p.redis
	if svc.database != "" {
		e["DATABASE_URL"] = p.databases[svc.database]
	}
	if svc.name != authService {
		e["JWKS_URL"] = "http://" + p.listen[authService].http + "/.well-known/jwks.json"
	}
	switch svc.name {
	case gateway:
		s.preset(e, "PUBLIC_BASE_URL", p.public)
		for _, other := range services {
			if other.variable != "" {
				e[other.variable] = "http://" + p.listen[other.name].http
			}
		}
	case authService:
		s.preset(e, "PUBLIC_BASE_URL", p.public)
		e["ADMIN_EMAIL"], e["ADMIN_PASSWORD"] = p.admin.Email, p.admin.Password
	case userService:
		e["EMAIL_URL"] = "http://" + p.listen[emailService].http
		e["AUDIT_URL"] = "http://" + p.listen[auditService].http
		s.preset(e, "PUBLIC_BASE_URL", p.public)
	case emailService:
		s.preset(e, "PUBLIC_BASE_URL", p.public)
		s.preset(e, "MAIL_FROM", "no-reply@headgate.local")
		e["SMTP_URL"] = p.smtp
	}
	return e
}

// preset sets the variable unless the caller has set it in the environment or in .env, which
// the services read themselves.
func (s *stack) preset(e environment, name, value string) {
	if s.dotenv[name] == "" {
		e.preset(name, value)
	}
}

// setting returns the value of a variable in the environment of the caller, or else in .env.
func (s *stack) setting(name string) string {
	if value := s.caller[name]; value != "" {
		return value
	}
	return s.dotenv[name]
}
