package upstream

import (
	"errors"
	"net/url"
	"strings"
)

// Addresses are the URLs at which a service listens, written with commas between them.
type Addresses []*url.URL

var errAddress = errors.New("want http(s)://host:port, several separated by commas")

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Addresses) UnmarshalText(text []byte) error {
	*a = nil
	for part := range strings.SplitSeq(string(text), ",") {
		u, err := url.Parse(strings.TrimSpace(part))
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
			u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
			return errAddress
		}
		u.Path = ""
		*a = append(*a, u)
	}
	return nil
}
