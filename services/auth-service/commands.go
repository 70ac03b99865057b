package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

var commands = []service.Command[Config]{
	{Name: "admin create", Usage: "create an administrator: admin create EMAIL [NAME]; reads the password from standard input", Run: createAdmin},
	{Name: "keys list", Usage: "list the signing keys and their states", Run: listKeys},
	{Name: "keys rotate", Usage: "schedule a new signing key: keys rotate [-in DURATION] [-alg ES256|EdDSA]", Run: rotateKeys},
	{Name: "keys retire", Usage: "delete a signing key and refuse its tokens: keys retire [-force] KEY", Run: retireKey},
	{Name: "keys re-encrypt", Usage: "encrypt everything in the database with the first key of ENCRYPTION_KEY", Run: reencrypt},
	{Name: "sessions revoke-all", Usage: "end the sessions of all accounts: sessions revoke-all [-before TIME]", Run: revokeAll},
	{Name: "users import", Usage: "create accounts from a file, with their password hashes: users import [-report FILE] [-ids FILE] FILE", Run: importUsers},
	{Name: "users convert", Usage: "convert an export of another system to what users import reads: " + convertUsage, Bare: convertUsers},
	{Name: "users delete", Usage: "delete the accounts with the ids in a file, one a line, and never use these ids again: users delete FILE", Run: deleteUsers},
	{Name: workCommand, Usage: "internal: hash passwords for the service that started this process", Bare: work},
	{Name: "users export", Usage: "write all accounts with their password hashes to standard output", Run: exportUsers},
}

// withDomain runs a command on the database that the service has migrated. The relay of a
// running service publishes its events.
func withDomain(ctx context.Context, cfg Config, do func(ctx context.Context, d domain) error) error {
	log := service.NewLogger(os.Stderr, name, cfg.Common)
	db, err := postgres.OpenExisting(ctx, cfg.Database, log, schemas...)
	if err != nil {
		return err
	}
	defer db.Close()
	clock, err := postgres.NewClock(ctx, db, log)
	if err != nil {
		return err
	}
	hasher, err := cfg.hasher(nil)
	if err != nil {
		return err
	}
	ctx = event.WithActor(ctx, event.Actor{Type: "service", ID: name})
	box := outbox.New(name)
	refusals := outbox.NewRefusals(box, db, log, clock.Now)
	d, err := newDomain(ctx, dependencies{db: db, outbox: box, refusals: refusals, now: clock.Now, hasher: hasher, log: log}, cfg)
	if err != nil {
		return err
	}
	return do(ctx, d)
}

// parse parses the flags of a command and returns its arguments.
func parse(usage string, args []string, define func(*flag.FlagSet)) ([]string, error) {
	flags := flag.NewFlagSet(usage, flag.ContinueOnError)
	if define != nil {
		define(flags)
	}
	if err := service.ParseFlags(flags, args); err != nil {
		return nil, fmt.Errorf("%w; usage: %s %s", err, name, usage)
	}
	return flags.Args(), nil
}

func listKeys(ctx context.Context, cfg Config, args []string) error {
	if len(args) > 0 {
		return errors.New("usage: auth-service keys list")
	}
	return withDomain(ctx, cfg, func(_ context.Context, d domain) error {
		w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "KEY\tALGORITHM\tCREATED\tACTIVE FROM\tSTATE")
		for _, k := range d.keyring.List() {
			state := string(k.State)
			if k.State == signing.Retiring {
				state += ", in use until " + utc(k.ReplacedAt.Add(cfg.AccessTokenTTL+time.Minute))
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", k.ID, k.Algorithm(), utc(k.CreatedAt), utc(k.ActivatesAt), state)
		}
		return w.Flush()
	})
}

func utc(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func rotateKeys(ctx context.Context, cfg Config, args []string) error {
	const usage = "keys rotate [-in DURATION] [-alg ES256|EdDSA]"
	notice, algorithm := signing.ActivationDelay, signing.ES256
	operands, err := parse(usage, args, func(f *flag.FlagSet) {
		f.DurationVar(&notice, "in", notice, "")
		f.StringVar(&algorithm, "alg", algorithm, "")
	})
	if err != nil {
		return err
	}
	if len(operands) > 0 || notice < 0 {
		return errors.New("usage: auth-service " + usage)
	}
	return withDomain(ctx, cfg, func(ctx context.Context, d domain) error {
		key, err := d.keyring.Rotate(ctx, algorithm, notice)
		if err != nil {
			return err
		}
		if notice < signing.ActivationDelay {
			fmt.Fprintf(os.Stderr, "warning: services may refuse valid tokens for up to %s, until they have loaded the new key\n", signing.ActivationDelay)
		}
		_, err = fmt.Fprintf(os.Stdout, "key %s becomes active at %s\n", key.ID, key.ActivatesAt.Format(time.RFC3339))
		return err
	})
}

func retireKey(ctx context.Context, cfg Config, args []string) error {
	const usage = "keys retire [-force] KEY"
	force := false
	operands, err := parse(usage, args, func(f *flag.FlagSet) { f.BoolVar(&force, "force", false, "") })
	if err != nil {
		return err
	}
	if len(operands) != 1 {
		return errors.New("usage: auth-service " + usage)
	}
	return withDomain(ctx, cfg, func(ctx context.Context, d domain) error {
		var err error
		if force {
			err = d.keyring.ForceRetire(ctx, operands[0])
		} else {
			err = d.keyring.Retire(ctx, operands[0], cfg.AccessTokenTTL)
		}
		if errors.Is(err, signing.ErrKeyInUse) {
			return fmt.Errorf("%w, or at once with -force", err)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(os.Stdout, "key retired:", operands[0])
		return err
	})
}

// reencrypt makes it possible to remove all keys of ENCRYPTION_KEY but the first.
func reencrypt(ctx context.Context, cfg Config, args []string) error {
	if len(args) > 0 {
		return errors.New("usage: auth-service keys re-encrypt")
	}
	return withDomain(ctx, cfg, func(ctx context.Context, d domain) error {
		counts := map[string]int{}
		err := d.seals.Reencrypt(ctx, func(name string, n int) { counts[name] += n })
		for _, name := range slices.Sorted(maps.Keys(counts)) {
			fmt.Fprintf(os.Stdout, "%s re-encrypted: %d\n", name, counts[name])
		}
		if err != nil {
			return fmt.Errorf("%w; run the command again to re-encrypt the rest", err)
		}
		_, err = fmt.Fprintf(os.Stdout, "everything is encrypted with the first key; the others recognize repeated sign-ups for %s more\n", account.IdempotencyRetention)
		return err
	})
}
