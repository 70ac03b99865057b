package event

import "context"

// Origin is where a fact comes from: who acted, from which address, in which
// request. The edge of a service puts it into the context; New copies it.
type Origin struct {
	Actor         Actor
	IP            string
	UserAgent     string
	RequestID     string
	CorrelationID string
	CausationID   string
	TraceParent   string
}

type originKey struct{}

// WithOrigin returns a context that carries o.
func WithOrigin(ctx context.Context, o Origin) context.Context {
	return context.WithValue(ctx, originKey{}, o)
}

// OriginFrom returns the origin that ctx carries, or an anonymous one.
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
