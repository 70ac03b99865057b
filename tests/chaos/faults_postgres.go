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
		{name: "Postgres of auth crashes", effect: unknowns(signup, login, refresh)},
		{name: "Postgres of user crashes", effect: unknowns(patch), quick: true},
		{name: "Postgres of email crashes", effect: unread(emailService), window: true},
		{name: "Postgres of audit crashes", effect: unread(auditService), quick: true},
	}
	for i, database := range []string{"auth", "user", "email", "audit"} {
		all[i].parts = []string{postgresOf(database)}
		all[i].inject, all[i].heal = crash(database), revive(database)
		all[i].lasts = 2500 * time.Millisecond
	}
	return all
}
