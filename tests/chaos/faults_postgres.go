package main

import (
	"context"
	"syscall"
	"time"
)

func postgresFaults() []fault {
	crash := func(database string) func(context.Context, *phase) error {
		return func(ctx context.Context, p *phase) error {
			return p.stack.databases[database].end(ctx, syscall.SIGQUIT)
		}
	}
	revive := func(database string) func(context.Context, *phase) error {
		return func(ctx context.Context, p *phase) error { return p.stack.databases[database].start(ctx) }
	}
	all := []fault{
		{name: "Postgres of auth crashes", parts: []string{"postgres-auth"}, effect: unknowns, inject: crash("auth"), heal: revive("auth")},
		{name: "Postgres of user crashes", parts: []string{"postgres-user"}, effect: unknowns, inject: crash("user"), heal: revive("user"), quick: true},
		{name: "Postgres of email crashes", parts: []string{"postgres-email"}, effect: unread(emailService), inject: crash("email"), heal: revive("email"), window: true},
		{name: "Postgres of audit crashes", parts: []string{"postgres-audit"}, effect: unread(auditService), inject: crash("audit"), heal: revive("audit"), quick: true},
	}
	for i := range all {
		all[i].lasts = 2500 * time.Millisecond
	}
	return all
}
