package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"
)

// revokeAll is the command "sessions revoke-all", for an emergency in which no administrator
// can sign in.
func revokeAll(ctx context.Context, cfg Config, args []string) error {
	const usage = "sessions revoke-all [-before TIME]"
	var text string
	operands, err := parse(usage, args, func(f *flag.FlagSet) { f.StringVar(&text, "before", "", "") })
	if err != nil {
		return err
	}
	if len(operands) > 0 {
		return errors.New("usage: auth-service " + usage)
	}
	var before time.Time
	if text != "" {
		if before, err = time.Parse(time.RFC3339, text); err != nil {
			return errors.New("-before: invalid timestamp: use RFC 3339, for example 2026-01-31T12:00:00Z")
		}
	}
	return withDomain(ctx, cfg, func(ctx context.Context, d domain) error {
		before, err := d.accounts.RevokeAll(ctx, before)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(os.Stdout, "revoked: all sessions that began before", utc(before))
		return err
	})
}
