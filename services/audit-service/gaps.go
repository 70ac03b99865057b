package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/service"
)

var gapsCommand = service.Command[Config]{
	Name: "gaps", Usage: "list published events that are missing from the audit log; prints nothing if it is complete [-since 168h]", Run: gaps,
}

// staleAfter is the age of a watermark above which gaps warns about its producer.
const staleAfter = 10 * time.Minute

// gaps prints the gaps, and nothing else, to standard output. It fails if there are
// any, so that a script can use its exit code.
func gaps(ctx context.Context, cfg Config, args []string) error {
	flags := flag.NewFlagSet("gaps", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	since := flags.Duration("since", 0, "")
	const usage = "usage: audit-service gaps [-since 168h]"
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w; %s", err, usage)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; %s", flags.Arg(0), usage)
	}
	db, err := postgres.Open(ctx, cfg.Database, service.NewLogger(os.Stderr, name, cfg.Common), schemas...)
	if err != nil {
		return err
	}
	defer db.Close()
	from := time.Unix(0, 0)
	if *since > 0 {
		from = time.Now().Add(-*since)
	}
	report, err := reconcile.Gaps(ctx, db, event.Audit, from)
	if err != nil {
		return err
	}
	for producer, at := range report.Reported {
		if age := time.Since(at); age > staleAfter {
			fmt.Fprintf(os.Stderr, "the last watermark of %s is %s old; events published since are not checked\n", producer, age.Round(time.Second))
		}
	}
	for _, gap := range report.Gaps {
		if _, err := fmt.Fprintln(os.Stdout, gap); err != nil {
			return fmt.Errorf("print gaps: %w", err)
		}
	}
	if len(report.Gaps) > 0 {
		return fmt.Errorf("the audit log is incomplete: %d gaps", len(report.Gaps))
	}
	return nil
}
