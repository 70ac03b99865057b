package web

import (
	"errors"
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"regexp"
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
// 9110, 5.6.1). Read from its end, a line is what the last proxy wrote, in which quotes come in
// pairs and hide commas, such as those of the client in host="…". A quote that a client left
// open comes before that, and hides nothing.
func backwards(lines []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range slices.Backward(lines) {
			for more := true; more; {
				var element string
				if comma := lastComma(line); comma >= 0 {
					line, element = line[:comma], line[comma+1:]
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

// lastComma returns the index of the last comma outside quotes, or -1.
func lastComma(line string) int {
	quoted := false
	for i := len(line) - 1; i >= 0; i-- {
		switch {
		case line[i] == '"' && (!quoted || !escaped(line, i)):
			quoted = !quoted
		case line[i] == ',' && !quoted:
			return i
		}
	}
	return -1
}

// escaped reports whether an odd number of backslashes precedes the i-th byte.
func escaped(text string, i int) bool {
	before := text[:i]
	return (len(before)-len(strings.TrimRight(before, `\`)))%2 == 1
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
	node = unquote(node)
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
	for parameter := range parameters(element) {
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

// parameters yields what is between the semicolons of an element, except those in quotes.
func parameters(element string) iter.Seq[string] {
	return func(yield func(string) bool) {
		quoted, begin := false, 0
		for i := range len(element) {
			switch {
			case element[i] == '"' && (!quoted || !escaped(element, i)):
				quoted = !quoted
			case element[i] == ';' && !quoted:
				if !yield(element[begin:i]) {
					return
				}
				begin = i + 1
			}
		}
		yield(element[begin:])
	}
}

var escape = regexp.MustCompile(`\\(.)`)

// unquote returns the text of a quoted string (RFC 9110, 5.6.4), or text itself.
func unquote(text string) string {
	if len(text) < 2 || text[0] != '"' || text[len(text)-1] != '"' {
		return text
	}
	return escape.ReplaceAllString(text[1:len(text)-1], "$1")
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
