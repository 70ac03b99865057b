package web

import (
	"errors"
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Prefixes is a list of networks, written as CIDRs or single addresses
// separated by commas.
type Prefixes []netip.Prefix

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Prefixes) UnmarshalText(text []byte) error {
	*p = nil
	for part := range strings.SplitSeq(string(text), ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		if addr, err := netip.ParseAddr(part); err == nil {
			*p = append(*p, netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()))
			continue
		}
		prefix, err := netip.ParsePrefix(part)
		if err != nil {
			return err
		}
		*p = append(*p, unmapped(prefix.Masked()))
	}
	return nil
}

// unmapped returns the IPv4 network that an IPv6 network such as ::ffff:10.0.0.0/104 stands
// for, because clients' addresses are compared in this form.
func unmapped(prefix netip.Prefix) netip.Prefix {
	const mapped = 96 // the length of ::ffff:0:0
	if !prefix.Addr().Is4In6() || prefix.Bits() < mapped {
		return prefix
	}
	return netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-mapped)
}

// Contain reports whether addr is in one of the networks.
func (p Prefixes) Contain(addr netip.Addr) bool {
	for _, prefix := range p {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

const (
	forwardedFor = "X-Forwarded-For"
	forwarded    = "Forwarded"
)

// ClientIP returns the address of the client: the peer or, if the peer is a trusted proxy,
// the last address that a proxy noted in X-Forwarded-For and that is not one. Without this
// header, Forwarded counts (RFC 7239). An address may have a port, brackets and quotes. If
// an entry is not an address, ClientIP returns the address of the proxy that wrote it, and an
// error that names both.
func ClientIP(r *http.Request, trusted Prefixes) (netip.Addr, error) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	client, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}, nil // A listener without addresses, such as a Unix socket.
	}
	client = client.Unmap().WithZone("")
	if !trusted.Contain(client) {
		return client, nil
	}
	name := forwardedFor
	if strings.Trim(strings.Join(r.Header[name], ""), ", \t") == "" {
		name = forwarded
	}
	for hop := range backwards(r.Header[name]) {
		addr, err := hopAddress(name, hop)
		if err != nil {
			return client, fmt.Errorf("%s from %s: %w: %.64q", name, client, err, hop)
		}
		if client = addr; !trusted.Contain(client) {
			break
		}
	}
	return client, nil
}

// backwards yields the elements of a header, the last first. Empty ones do not count (RFC
// 9110, 5.6.1). Commas in quotes separate as well: no address has one, and a quote that a
// client left open must not hide what a proxy appended.
func backwards(lines []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range slices.Backward(lines) {
			for more := true; more; {
				var element string
				before, after, found := cutLast(line, ',')
				if found {
					line, element = before, after
				} else {
					element, more = line, false
				}
				if element = strings.Trim(element, " \t"); element != "" && !yield(element) {
					return
				}
			}
		}
	}
}

func cutLast(text string, sep byte) (before, after string, found bool) {
	if i := strings.LastIndexByte(text, sep); i >= 0 {
		return text[:i], text[i+1:], true
	}
	return text, "", false
}

var (
	errNoAddress = errors.New("not an IP address")
	errNoFor     = errors.New("no address in for=")
)

// hopAddress returns the address in one element of a header.
func hopAddress(header, element string) (netip.Addr, error) {
	node := element
	if header == forwarded {
		var ok bool
		if node, ok = forParameter(element); !ok {
			return netip.Addr{}, errNoFor
		}
	}
	if unquoted, ok := strings.CutPrefix(node, `"`); ok {
		node = strings.TrimSuffix(unquoted, `"`)
	}
	addr, err := netip.ParseAddr(node)
	if err != nil {
		addr, err = netip.ParseAddr(withoutPort(node))
	}
	if err != nil {
		return netip.Addr{}, errNoAddress
	}
	return addr.Unmap().WithZone(""), nil
}

// forParameter returns the value of for= in an element of Forwarded; ok is false unless there
// is exactly one.
func forParameter(element string) (value string, ok bool) {
	for parameter := range strings.SplitSeq(element, ";") {
		name, text, found := strings.Cut(strings.Trim(parameter, " \t"), "=")
		if !found || !strings.EqualFold(name, "for") {
			continue
		}
		if ok {
			return "", false
		}
		value, ok = text, true
	}
	return value, ok
}

// withoutPort returns the address of a node such as 192.0.2.1:4711, [2001:db8::1]:443 or
// 192.0.2.1:_hidden (RFC 7239, 6). An invalid node is returned as it is.
func withoutPort(node string) string {
	if addr, err := netip.ParseAddrPort(node); err == nil {
		return addr.Addr().String()
	}
	bare, bracketed := strings.CutPrefix(node, "[")
	address, port, found := cutLast(node, ':')
	if bracketed {
		if bare, closed := strings.CutSuffix(bare, "]"); closed {
			return bare
		}
		address, found = strings.CutSuffix(strings.TrimPrefix(address, "["), "]")
	}
	if found && strings.HasPrefix(port, "_") {
		return address
	}
	return node
}
