package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/receipt"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/services/audit-service/internal/store"
)

var gapsCommand = service.Command[Config]{
	Name: "gaps", Usage: "print what producers have published and the log does not have; nothing if it is complete [-since 168h]", Run: gaps,
}

// staleAfter is how old a producer's word may be without a remark.
const staleAfter = 10 * time.Minute

// gaps fails if anything is missing, so that a script can ask. Standard output
// has what is missing and nothing else.
func gaps(ctx context.Context, cfg Config, args []string) error {
	flags := flag.NewFlagSet("gaps", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	since := flags.Duration("since", 0, "")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return fmt.Errorf("usage: audit-service gaps [-since 168h]: %w", err)
	}
	db, err := postgres.Open(ctx, cfg.Database, service.NewLogger(os.Stderr, name, cfg.Common),
		outbox.Schema(), deadletter.Schema(), receipt.LedgerSchema(), store.Schema())
	if err != nil {
		return err
	}
	defer db.Close()
	from := time.Unix(0, 0)
	if *since > 0 {
		from = time.Now().Add(-*since)
	}
	report, err := receipt.Gaps(ctx, db, event.Audit, from)
	if err != nil {
		return err
	}
	for producer, at := range report.Reported {
		if age := time.Since(at); age > staleAfter {
			fmt.Fprintf(os.Stderr, "%s was last heard of %s ago; what it has published since is not covered\n", producer, age.Round(time.Second))
		}
	}
	for _, gap := range report.Gaps {
		if _, err := fmt.Fprintln(os.Stdout, gap); err != nil {
			return fmt.Errorf("print gaps: %w", err)
		}
	}
	if len(report.Gaps) > 0 {
		return fmt.Errorf("the log is not complete: %d gaps", len(report.Gaps))
	}
	return nil
}
