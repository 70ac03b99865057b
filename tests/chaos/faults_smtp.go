package main

import (
	"context"
	"fmt"
	"time"
)

// longOutage is longer than all attempts of a consumer: retries alone would lose mail.
const longOutage = 5 * time.Second

func smtpFaults() []fault {
	behave := func(b behavior) func(context.Context, *phase) error {
		return func(_ context.Context, p *phase) error {
			p.stack.smtp.behave(b, 0)
			return nil
		}
	}
	return []fault{
		{
			name: "mail server down", parts: []string{mailServer}, window: true, lasts: longOutage,
			inject: func(_ context.Context, p *phase) error { return p.stack.smtp.close() },
			heal:   func(ctx context.Context, p *phase) error { return p.stack.smtp.open(ctx) },
			effect: func(ctx context.Context, p *phase) (int64, error) { return p.observer.failing(ctx, p.started) },
		},
		{name: "mail server says 421", parts: []string{mailServer}, lasts: longOutage, inject: behave(greets421), heal: behave(accepts), effect: refusals},
		{name: "mail server says 451 to RCPT", parts: []string{mailServer}, lasts: longOutage, inject: behave(refuses451), heal: behave(accepts), effect: refusals},
		{
			name: "mail server hangs up after DATA", window: true, lasts: 3 * time.Second,
			inject: behave(hangsUp), heal: behave(accepts),
			effect: func(_ context.Context, p *phase) (int64, error) { return p.stack.smtp.repeated(p.name), nil },
		},
		{name: "mail server says 550", quick: true, lasts: time.Second, inject: signUpRejected, heal: nothing, effect: refusals},
	}
}

// signUpRejected signs up addresses that the mail server rejects permanently.
func signUpRejected(ctx context.Context, p *phase) error {
	for n := range 5 {
		email := fmt.Sprintf("%s%d-%d@example.com", bounce, p.opts.seed, n)
		if _, end := p.workload.signUpWithoutMail(ctx, email); end != ok {
			return fmt.Errorf("sign up %s: %s", email, end)
		}
	}
	return nil
}
