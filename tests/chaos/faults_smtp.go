package main

import (
	"context"
	"fmt"
	"time"
)

// longer is more than a consumer's attempts take: who only repeats loses mail.
const longer = 5 * time.Second

func smtpFaults() []fault {
	behave := func(m manner) func(context.Context, *phase) error {
		return func(_ context.Context, p *phase) error {
			p.stack.smtp.behave(m, 0)
			return nil
		}
	}
	return []fault{
		{
			name: "mail server down", window: true, lasts: longer,
			inject: func(_ context.Context, p *phase) error { return p.stack.smtp.close() },
			heal:   func(ctx context.Context, p *phase) error { return p.stack.smtp.open(ctx) },
			bit:    func(ctx context.Context, p *phase) (int64, error) { return p.observer.failing(ctx, p.started) },
		},
		{name: "mail server says 421", lasts: longer, inject: behave(greets421), heal: behave(obliging), bit: refusals},
		{name: "mail server says 451 to RCPT", lasts: longer, inject: behave(refuses451), heal: behave(obliging), bit: refusals},
		{
			name: "mail server hangs up after DATA", window: true, lasts: 3 * time.Second,
			inject: behave(hangsUp), heal: behave(obliging),
			bit: func(_ context.Context, p *phase) (int64, error) { return p.stack.smtp.repeated(p.name), nil },
		},
		{name: "mail server says 550", quick: true, lasts: time.Second, inject: strangers, heal: nothing, bit: refusals},
	}
}

// strangers signs up addresses that no mail server takes.
func strangers(ctx context.Context, p *phase) error {
	for n := range 5 {
		email := fmt.Sprintf("%s%d-%d@example.com", bounce, p.opts.seed, n)
		if _, end := p.workload.enrol(ctx, email, true); end != ok {
			return fmt.Errorf("sign up %s: %s", email, end)
		}
	}
	return nil
}
