package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/services/email-service/internal/store"
)

var resumeCommand = service.Command[Config]{
	Name: "resume", Usage: "decide about the mails that are withheld since the database was restored: --send-all, or --skip-before TIME (RFC 3339)", Run: resume,
}

var errResumeUsage = errors.New("usage: email-service resume --send-all | --skip-before 2026-01-31T12:00:00Z")

// resume prints what happens to the withheld mails. The running service sends them.
func resume(ctx context.Context, cfg Config, args []string) error {
	skipBefore, err := readResume(args)
	if err != nil {
		return err
	}
	db, err := postgres.OpenExisting(ctx, cfg.Database, service.NewLogger(os.Stderr, name, cfg.Common), schemas...)
	if err != nil {
		return err
	}
	defer db.Close()
	messages := store.New(db, outbox.New(name), time.Now, checked)
	// Before the check, nobody knows which mails are to be withheld.
	if err := messages.Checked(ctx); err != nil {
		return fmt.Errorf("%w; decide when /readyz of the service says that mails are withheld", err)
	}
	resumed, err := messages.Resume(deadletter.AsOperator(ctx), skipBefore)
	if err != nil {
		return err
	}
	if resumed.Restores == 0 {
		_, err = fmt.Fprintln(os.Stdout, "no mails are withheld")
		return err
	}
	_, err = fmt.Fprintf(os.Stdout, "mails to send: %d, suppressed: %d\n", resumed.Due, resumed.Suppressed)
	return err
}

// readResume returns the time before which mails are suppressed; zero means that all are
// sent.
func readResume(args []string) (time.Time, error) {
	flags := flag.NewFlagSet("resume", flag.ContinueOnError)
	all := flags.Bool("send-all", false, "")
	before := flags.String("skip-before", "", "")
	if err := service.ParseFlags(flags, args); err != nil {
		return time.Time{}, errors.Join(err, errResumeUsage)
	}
	if flags.NArg() > 0 || *all == (*before != "") {
		return time.Time{}, errResumeUsage
	}
	if *all {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, *before)
	if err != nil {
		return time.Time{}, errors.Join(errors.New("invalid time: use RFC 3339, for example 2026-01-31T12:00:00Z"), errResumeUsage)
	}
	return at, nil
}
