package deadletter

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/user"
	"text/tabwriter"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/web"
)

// Config is the configuration of a service with dead letters.
type Config interface {
	service.Config
	DatabaseConfig() postgres.Database
}

// Commands returns the dead-letter commands of a service. They do the same as the
// HTTP routes; the running service carries out the replays. schemas are all those of
// the service.
func Commands[C Config](producer string, schemas []postgres.Schema) []service.Command[C] {
	run := func(action func(context.Context, *Store, []string) error) func(context.Context, C, []string) error {
		return func(ctx context.Context, cfg C, args []string) error {
			log := service.NewLogger(os.Stderr, producer, cfg.CommonConfig())
			db, err := postgres.OpenExisting(ctx, cfg.DatabaseConfig(), log, schemas...)
			if err != nil {
				return err
			}
			defer db.Close()
			return action(AsOperator(ctx), operator(db, producer), args)
		}
	}
	return []service.Command[C]{
		{Name: "dead-letters list", Usage: "list dead letters [-type T] [-reason R] [-status open|replaying|replayed|discarded|all] [-max N]", Run: run(listCommand)},
		{Name: "dead-letters show", Usage: "show ID: print a dead letter with its attempts and payload", Run: run(showCommand)},
		{Name: "dead-letters replay", Usage: "replay ID, or the oldest that match: [-type T] [-reason R] -max N [-dry-run]", Run: run(replayCommand)},
		{Name: "dead-letters discard", Usage: "discard ID -reason R, without a replay", Run: run(discardCommand)},
	}
}

func operator(db *postgres.Pool, producer string) *Store {
	return New(db, outbox.New(producer), time.Now)
}

// AsOperator makes the operating system's user the actor of the audit records.
func AsOperator(ctx context.Context) context.Context {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return event.WithActor(ctx, event.Actor{Type: "admin", ID: "shell:" + name})
}

// parse reads flags before or after an optional id.
func parse(flags *flag.FlagSet, args []string) (id string, err error) {
	if err := service.ParseFlags(flags, args); err != nil {
		return "", fmt.Errorf("read arguments: %w", err)
	}
	if flags.NArg() > 0 {
		id = flags.Arg(0)
		if err := service.ParseFlags(flags, flags.Args()[1:]); err != nil {
			return "", fmt.Errorf("read arguments: %w", err)
		}
	}
	if flags.NArg() > 0 {
		return "", fmt.Errorf("read arguments: unexpected argument %q", flags.Arg(0))
	}
	if id != "" && !web.ValidID(id) {
		return "", fmt.Errorf("read arguments: invalid dead letter id %q", id)
	}
	return id, nil
}

const anyStatus = "all"

func listCommand(ctx context.Context, s *Store, args []string) error {
	flags := flag.NewFlagSet("list", flag.ContinueOnError)
	var filter Filter
	flags.StringVar(&filter.Type, "type", "", "")
	flags.StringVar(&filter.Reason, "reason", "", "")
	flags.StringVar(&filter.Status, "status", Open, "")
	limit := flags.Int("max", 100, "")
	if id, err := parse(flags, args); err != nil || id != "" || *limit < 1 {
		return errors.Join(err, errors.New("usage: dead-letters list [-type T] [-reason R] [-status S] [-max N]"))
	}
	if filter.Status == anyStatus {
		filter.Status = ""
	}
	deadLetters, err := s.List(ctx, filter, "", *limit)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tTYPE\tCLASS\tATTEMPTS\tLAST FAILED\tSTATUS\tREASON")
	for _, l := range deadLetters {
		name := value(l.Type)
		if name == "" {
			name = "(not decoded)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", l.ID, name, l.Class, l.Attempts, l.LastFailedAt.UTC().Format(time.DateTime), l.Status, l.Reason)
	}
	return w.Flush()
}

func showCommand(ctx context.Context, s *Store, args []string) error {
	id, err := parse(flag.NewFlagSet("show", flag.ContinueOnError), args)
	if err != nil || id == "" {
		return errors.Join(err, errors.New("usage: dead-letters show ID"))
	}
	detail, err := s.Get(ctx, id)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	return out.Encode(detail)
}

func replayCommand(ctx context.Context, s *Store, args []string) error {
	flags := flag.NewFlagSet("replay", flag.ContinueOnError)
	var filter Filter
	flags.StringVar(&filter.Type, "type", "", "")
	flags.StringVar(&filter.Reason, "reason", "", "")
	limit := flags.Int("max", 0, "")
	dryRun := flags.Bool("dry-run", false, "")
	id, err := parse(flags, args)
	// An id with flags is rejected: -dry-run would have no effect.
	if err != nil || (id == "") == (flags.NFlag() == 0) || id == "" && *limit == 0 {
		return errors.Join(err, errors.New("usage: dead-letters replay ID, or replay [-type T] [-reason R] -max N [-dry-run]"))
	}
	if id != "" {
		if err := s.Replay(ctx, id); err != nil {
			return err
		}
		_, err := fmt.Fprintln(os.Stdout, "replay requested", id)
		return err
	}
	if *dryRun {
		outcome, err := s.PreviewReplay(ctx, filter, *limit)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(os.Stdout, "dry run: matching: %d, to be replayed: %d, not replayable: %d\n",
			outcome.Matched, min(outcome.Matched, *limit), outcome.NotReplayable)
		return err
	}
	outcome, err := s.ReplayMatching(ctx, filter, *limit)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(os.Stdout, "matching: %d, replays requested: %d, not replayable: %d\n", outcome.Matched, outcome.Requested, outcome.NotReplayable)
	return err
}

func discardCommand(ctx context.Context, s *Store, args []string) error {
	flags := flag.NewFlagSet("discard", flag.ContinueOnError)
	reason := flags.String("reason", "", "")
	id, err := parse(flags, args)
	if err != nil || id == "" {
		return errors.Join(err, errors.New("usage: dead-letters discard ID -reason R"))
	}
	if err := s.Discard(ctx, id, *reason); err != nil {
		return err
	}
	_, err = fmt.Fprintln(os.Stdout, "discarded", id)
	return err
}
