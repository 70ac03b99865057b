package factor

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/go-webauthn/webauthn/protocol"
	"golang.org/x/net/publicsuffix"
)

// RelyingParty is the site that passkeys are for (Web Authentication, 4).
type RelyingParty struct {
	ID      string // the domain that passkeys are bound to: each is of use for one ID only
	Name    string // shown when a passkey is created
	Origins Origins
}

// Origins are the pages and applications that may use the passkeys of a relying party, as
// browsers and Android write them: https://app.example.com, android:apk-key-hash:….
type Origins []string

const (
	androidOrigin = "android:apk-key-hash:"

	// maxRelatedLabels is how many registrable domains browsers accept in a document of
	// related origins, counted without their public suffixes (Web Authentication, 5.11).
	maxRelatedLabels = 5
)

// UnmarshalText implements encoding.TextUnmarshaler for origins that are separated by commas.
func (o *Origins) UnmarshalText(text []byte) error {
	*o = nil
	for origin := range strings.SplitSeq(string(text), ",") {
		if origin = strings.TrimSpace(origin); origin == "" {
			continue
		}
		if err := checkOrigin(origin); err != nil {
			return fmt.Errorf("%q: %w", origin, err)
		}
		*o = append(*o, origin)
	}
	return nil
}

func checkOrigin(origin string) error {
	if hash, ok := strings.CutPrefix(origin, androidOrigin); ok {
		if sum, err := base64.RawURLEncoding.Strict().DecodeString(hash); err != nil || len(sum) != 32 {
			return errors.New("want " + androidOrigin + " and the SHA-256 hash of the signing certificate in base64url without padding")
		}
		return nil
	}
	u, err := url.Parse(origin)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return errors.New("want an origin such as https://app.example.com or " + androidOrigin + "…")
	case origin != webOrigin(u):
		return fmt.Errorf("want scheme, host and port as browsers send them: %s", webOrigin(u))
	case u.Scheme == "http" && !isLocal(u.Hostname()):
		return errors.New("want https, except for localhost: browsers offer passkeys on secure pages only")
	case net.ParseIP(u.Hostname()) != nil:
		return errors.New("want a host name: browsers offer no passkeys for IP addresses")
	case !isASCIIHost(u.Hostname()):
		return errors.New("want a host name in ASCII, as browsers send it (xn--…)")
	}
	return nil
}

// WebOrigin returns the origin of a URL as browsers send it, or "" if it cannot have
// passkeys because its host is an IP address.
func WebOrigin(u *url.URL) string {
	if net.ParseIP(u.Hostname()) != nil {
		return ""
	}
	return webOrigin(u)
}

// webOrigin returns scheme and host of a URL in lower case, and its port unless it is that
// of the scheme (RFC 6454, 6.2).
func webOrigin(u *url.URL) string {
	host := strings.ToLower(u.Host)
	if port := u.Port(); port == "" || u.Scheme == "https" && port == "443" || u.Scheme == "http" && port == "80" {
		host = strings.ToLower(u.Hostname())
	}
	return strings.ToLower(u.Scheme) + "://" + host
}

func isLocal(host string) bool { return host == "localhost" || strings.HasSuffix(host, ".localhost") }

// Validate checks what browsers would refuse. Each origin must be valid by itself.
func (rp RelyingParty) Validate() error {
	if err := protocol.ValidateRPID(rp.ID); err != nil || !isASCIIHost(rp.ID) {
		return fmt.Errorf("%q: want a domain name such as example.com, in lower case, without scheme and port", rp.ID)
	}
	equal := false
	labels := map[string]bool{}
	for _, origin := range rp.Origins {
		equal = equal || hostOf(origin) == rp.ID
		if rp.isRelated(origin) {
			labels[label(hostOf(origin))] = true
		}
	}
	if suffix, _ := publicsuffix.PublicSuffix(rp.ID); suffix == rp.ID && !equal {
		return fmt.Errorf("%s: want a domain under which nobody else can register names", rp.ID)
	}
	if len(labels) > maxRelatedLabels {
		return fmt.Errorf("origins outside of %s have %d different domains: browsers accept %d", rp.ID, len(labels), maxRelatedLabels)
	}
	return nil
}

func isASCIIHost(host string) bool {
	return strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789.-") == "" && !strings.HasSuffix(host, ".")
}

// Related returns the origins of pages that are outside of the domain of the relying party.
// Browsers accept them if the domain serves the list (Web Authentication, 5.11).
func (rp RelyingParty) Related() []string {
	related := []string{}
	for _, origin := range rp.Origins {
		if rp.isRelated(origin) {
			related = append(related, origin)
		}
	}
	return related
}

func (rp RelyingParty) isRelated(origin string) bool {
	host := hostOf(origin)
	return host != "" && host != rp.ID && !strings.HasSuffix(host, "."+rp.ID)
}

// hostOf returns the host of an origin, or "" if it is that of an application.
func hostOf(origin string) string {
	u, err := url.Parse(origin)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// label returns the name that was registered for a host, without its public suffix.
func label(host string) string {
	domain, err := publicsuffix.EffectiveTLDPlusOne(host)
	if err != nil {
		return host
	}
	name, _, _ := strings.Cut(domain, ".")
	return name
}
