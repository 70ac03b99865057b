package main

import (
	"context"
)

// peer compares auth-service with a minimal program that does the same; see plain.
func (b *bench) peer(ctx context.Context) error {
	auth, err := b.startService(ctx, "auth-service", "bench_peer", "PUBLIC_BASE_URL=http://localhost", "REFRESH_GRACE=0s")
	if err != nil {
		return err
	}
	running := processes{auth}
	defer func() { running.stop() }()
	plain, err := b.startPlain(ctx)
	if err != nil {
		return err
	}
	running = append(running, plain)

	const at = 16
	var variants []variant
	for name, p := range map[string]process{"auth-service": auth, "plain": plain} {
		c := newClient(p.url, "")
		accounts, err := c.accounts(ctx, at)
		if err != nil {
			return err
		}
		variants = append(variants,
			variant{name + " refresh", func(ctx context.Context) (float64, error) { return rate(ctx, accounts, c.refresh) }},
			variant{name + " signup", func(ctx context.Context) (float64, error) {
				return rate(ctx, make([]*account, at), func(ctx context.Context, _ *account) error { return c.signUp(ctx, &account{}) })
			}},
		)
	}
	medians, err := b.alternate(ctx, variants...)
	if err != nil {
		return err
	}
	for _, what := range []string{"refresh", "signup"} {
		ours, theirs := medians["auth-service "+what], medians["plain "+what]
		b.report.figure("peer", what+", net/http and pgx, the same SQL and hash", perSecond(theirs))
		b.report.compared("peer", what+", auth-service / that", perSecond(ours), ours/theirs)
	}
	return nil
}
