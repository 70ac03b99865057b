package event

import (
	"context"
	"net/netip"
	"strings"
)

// Origin says where an event comes from: the actor, the IP address, the request.
// The edge of a service puts it into the context; New copies it into the event.
type Origin struct {
	Actor         Actor
	IP            string
	UserAgent     string
	RequestID     string
	CorrelationID string
	CausationID   string
	TraceParent   string
}

// Network returns the network that counts as one client: the IPv4 address, or the
// /64 of the IPv6 address, from which a host can choose any address.
func (o Origin) Network() string {
	addr, err := netip.ParseAddr(o.IP)
	if err != nil || addr.Is4() {
		return o.IP
	}
	prefix, err := addr.Prefix(64)
	if err != nil {
		return o.IP
	}
	return prefix.String()
}

// TraceID returns the trace id in TraceParent (W3C Trace Context, 3.2.2). It is
// empty if there is none.
func (o Origin) TraceID() string {
	_, rest, _ := strings.Cut(o.TraceParent, "-")
	id, _, ok := strings.Cut(rest, "-")
	if !ok || len(id) != 32 {
		return ""
	}
	return id
}

type originKey struct{}

// WithOrigin returns a context that carries o.
func WithOrigin(ctx context.Context, o Origin) context.Context {
	return context.WithValue(ctx, originKey{}, o)
}

// OriginFrom returns the origin in ctx. The default has an anonymous actor.
func OriginFrom(ctx context.Context) Origin {
	if o, ok := ctx.Value(originKey{}).(Origin); ok {
		return o
	}
	return Origin{Actor: Actor{Type: "anonymous"}}
}

// WithActor returns a context whose origin has the actor a.
func WithActor(ctx context.Context, a Actor) context.Context {
	o := OriginFrom(ctx)
	o.Actor = a
	return WithOrigin(ctx, o)
}
