package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/rs/cors"
	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/idna"

	"github.com/headgate/headgate/pkg/web"
)

// Origins are the origins of web applications whose scripts may call the gateway, such as
// https://app.example.com (RFC 6454).
type Origins []string

// UnmarshalText implements encoding.TextUnmarshaler for exact origins, separated by
// commas. There are no patterns, because a pattern tends to match more than intended.
func (o *Origins) UnmarshalText(text []byte) error {
	*o = nil
	for origin := range strings.SplitSeq(string(text), ",") {
		origin = strings.TrimSpace(origin)
		if origin == "" {
			continue
		}
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Scheme+"://"+u.Host != origin || strings.Contains(origin, "*") {
			return fmt.Errorf("%q: want an origin such as https://app.example.com", origin)
		}
		if ascii, err := idna.Lookup.ToASCII(u.Hostname()); strings.ContainsFunc(origin, func(c rune) bool { return c > unicode.MaxASCII }) {
			return errors.Join(err, fmt.Errorf("%q: browsers send the ASCII form of the host: %s", origin, ascii))
		}
		if origin != strings.ToLower(origin) {
			return fmt.Errorf("%q: browsers send origins in lower case", origin)
		}
		*o = append(*o, origin)
	}
	return nil
}

// Headers are names of request headers.
type Headers []string

// UnmarshalText implements encoding.TextUnmarshaler for names, separated by commas.
func (h *Headers) UnmarshalText(text []byte) error {
	*h = nil
	for name := range strings.SplitSeq(string(text), ",") {
		name = strings.TrimSpace(name)
		switch {
		case name == "":
		case name == "*" || !httpguts.ValidHeaderFieldName(name):
			return fmt.Errorf("%q: want the name of a header, such as traceparent", name)
		default:
			*h = append(*h, name)
		}
	}
	return nil
}

// CORS says which scripts of other origins may call the gateway.
type CORS struct {
	Origins Origins
	Headers Headers // that they may send besides those of the API
}

// apiHeaders are the request headers of the API.
var apiHeaders = []string{"Accept", "Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID", "X-Request-Id"}

// corsMaxAge is how many seconds a browser may cache a preflight response.
const corsMaxAge = 600

// crossOrigin lets scripts of the origins call next and read its responses. It never allows
// credentials that the browser adds itself: the token is in a header, which another site
// cannot make the browser send.
func crossOrigin(c CORS, next http.Handler) http.Handler {
	if len(c.Origins) == 0 {
		return next
	}
	policy := cors.New(cors.Options{
		AllowedOrigins: c.Origins,
		AllowedMethods: methods,
		AllowedHeaders: slices.Concat(apiHeaders, c.Headers),
		ExposedHeaders: []string{
			"Accept-Patch", "Content-Disposition", "ETag", "Idempotency-Replayed", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Cache",
			"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "X-Refresh-Outcome", "X-Request-Id",
		},
		MaxAge: corsMaxAge,
	})
	checked := policy.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			web.SetRoute(r.Context(), "preflight")
		}
		checked.ServeHTTP(w, r)
	})
}
