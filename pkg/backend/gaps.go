package backend

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/service"
)

// ConsumerCommands returns the commands of a service that consumes a topic: those of its
// dead letters and of its gaps. schemas are all those of the service.
func ConsumerCommands[C deadletter.Config](name string, topic event.Topic, schemas []postgres.Schema) []service.Command[C] {
	g := gaps{service: name, topic: topic}
	run := func(openFailed int, command func(context.Context, *postgres.Pool, []string) error) func(context.Context, C, []string) error {
		return func(ctx context.Context, cfg C, args []string) error {
			opening, cancel := context.WithTimeout(ctx, openTimeout)
			defer cancel()
			db, err := postgres.OpenExisting(opening, cfg.DatabaseConfig(), service.NewLogger(os.Stderr, name, cfg.CommonConfig()), schemas...)
			if err != nil {
				return service.WithExitCode(openFailed, err)
			}
			defer db.Close()
			return command(ctx, db, args)
		}
	}
	return append(ProducerCommands[C](name, schemas), append(deadletter.Commands[C](name, schemas),
		service.Command[C]{Name: "gaps accept", Usage: "accept GAP -reason R: stop looking for events that are missing for good", Run: run(exitFailed, g.accept)},
		service.Command[C]{Name: "gaps", Usage: "list published events that are missing here; exit code 0: none, 1: some, 2: cannot know [-since 168h]", Run: run(exitUnknown, g.list)},
	)...)
}

// The exit codes besides 0. That of gaps says whether it knows that something is missing.
const (
	exitFailed  = 1
	exitMissing = exitFailed
	exitUnknown = 2
)

const (
	openTimeout = 30 * time.Second
	reasonLimit = 500 // characters
)

// gaps are the commands about the gaps of one consumer.
type gaps struct {
	service string
	topic   event.Topic
}

// list prints the gaps, and nothing else, to standard output. Doubts and notes go to
// standard error.
func (g gaps) list(ctx context.Context, db *postgres.Pool, args []string) error {
	flags := flag.NewFlagSet("gaps", flag.ContinueOnError)
	since := flags.Duration("since", 0, "")
	usage := "usage: " + g.service + " gaps [-since 168h]"
	if err := service.ParseFlags(flags, args); err != nil {
		return service.WithExitCode(exitUnknown, fmt.Errorf("%w; %s", err, usage))
	}
	if flags.NArg() > 0 {
		return service.WithExitCode(exitUnknown, fmt.Errorf("unexpected argument %q; %s", flags.Arg(0), usage))
	}
	from := time.Unix(0, 0)
	switch {
	case *since < 0:
		return service.WithExitCode(exitUnknown, fmt.Errorf("-since: want a positive duration; %s", usage))
	case *since > 0:
		from = time.Now().Add(-*since)
	}
	report, err := reconcile.Gaps(ctx, db, g.topic, g.topic.Producers(), from)
	if err != nil {
		return service.WithExitCode(exitUnknown, err)
	}
	for _, line := range append(report.Notes, report.Doubts...) {
		fmt.Fprintln(os.Stderr, line)
	}
	for _, gap := range report.Gaps {
		if _, err := fmt.Fprintln(os.Stdout, gap); err != nil {
			return service.WithExitCode(exitUnknown, fmt.Errorf("print gaps: %w", err))
		}
	}
	if len(report.Gaps) > 0 {
		return service.WithExitCode(exitMissing, fmt.Errorf("incomplete; gaps: %d", len(report.Gaps)))
	}
	if len(report.Doubts) > 0 {
		return service.WithExitCode(exitUnknown, errors.New("cannot tell whether events are missing"))
	}
	return nil
}

// accept records a gap as accepted and the act as an event.
func (g gaps) accept(ctx context.Context, db *postgres.Pool, args []string) error {
	flags := flag.NewFlagSet("accept", flag.ContinueOnError)
	reason := flags.String("reason", "", "")
	usage := "usage: " + g.service + " gaps accept GAP -reason R, with GAP as gaps prints it"
	var id string
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		id, args = args[0], args[1:]
	}
	if err := service.ParseFlags(flags, args); err != nil {
		return fmt.Errorf("%w; %s", err, usage)
	}
	if id == "" {
		id = flags.Arg(0)
	}
	text := strings.TrimSpace(*reason)
	if id == "" || text == "" || utf8.RuneCountInString(text) > reasonLimit {
		return fmt.Errorf("a gap and a reason of 1 to %d characters are required; %s", reasonLimit, usage)
	}
	gap, err := reconcile.ParseGap(id)
	if err != nil {
		return err
	}
	ctx = deadletter.AsOperator(ctx)
	accepted := event.New(ctx, time.Now(), "", event.GapAccepted{Stream: string(g.topic), Gap: id, Reason: text})
	err = db.Transact(ctx, func(tx pgx.Tx) error {
		if err := reconcile.Accept(ctx, tx, reconcile.Acceptance{Topic: g.topic, Gap: gap, Reason: text, By: accepted.Actor.ID}); err != nil {
			return err
		}
		return outbox.New(g.service).Add(ctx, tx, accepted)
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(os.Stdout, "accepted", id)
	return err
}
