package backend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
)

// Remains counts the things with personal data of a subject that a service has, by what they
// are, without zeros.
type Remains[C any] func(ctx context.Context, cfg C, db *postgres.Pool, subject string) (map[string]int, error)

// ErasureReport returns the command erasure-report, which prints what the service has about a
// subject: nothing, after the subject was erased. Besides own it looks into the outbox and, if
// the service has them, the dead letters. The exit code is 0 for nothing, 1 if there is
// something, and 2 if the command cannot tell.
func ErasureReport[C deadletter.Config](name string, schemas []postgres.Schema, own Remains[C]) service.Command[C] {
	report := func(ctx context.Context, cfg C, args []string) error {
		if len(args) != 1 || uuid.Validate(args[0]) != nil {
			return service.WithExitCode(exitUnknown, errors.New("usage: "+name+" erasure-report ID, with the id of a user"))
		}
		subject := strings.ToLower(args[0])
		opening, cancel := context.WithTimeout(ctx, openTimeout)
		defer cancel()
		common := cfg.CommonConfig()
		common.LogLevel = "warn" // The report is for people.
		db, err := postgres.OpenExisting(opening, cfg.DatabaseConfig(), service.NewLogger(os.Stderr, name, common), schemas...)
		if err != nil {
			return service.WithExitCode(exitUnknown, err)
		}
		defer db.Close()
		found, err := own(ctx, cfg, db, subject)
		if err != nil {
			return service.WithExitCode(exitUnknown, err)
		}
		if err := countCommon(ctx, db, schemas, subject, found); err != nil {
			return service.WithExitCode(exitUnknown, err)
		}
		return printRemains(name, found)
	}
	return service.Command[C]{
		Name: "erasure-report", Run: report,
		Usage: "ID: print what is left of a deleted user; exit code 0: nothing, 1: something, 2: cannot know",
	}
}

// countCommon adds to found what every service may have.
func countCommon(ctx context.Context, db *postgres.Pool, schemas []postgres.Schema, subject string, found map[string]int) error {
	events, err := outbox.Remains(ctx, db, subject)
	if err != nil {
		return err
	}
	found["events in the outbox"] = events
	if !slices.ContainsFunc(schemas, func(s postgres.Schema) bool { return s.Name == deadletter.Schema().Name }) {
		return nil
	}
	deadLetters, err := deadletter.Remains(ctx, db, subject)
	found["dead letters"] = deadLetters
	return err
}

func printRemains(name string, found map[string]int) error {
	maps.DeleteFunc(found, func(_ string, n int) bool { return n == 0 })
	if len(found) == 0 {
		_, err := fmt.Fprintln(os.Stdout, name+": nothing")
		return err
	}
	for _, what := range slices.Sorted(maps.Keys(found)) {
		if _, err := fmt.Fprintf(os.Stdout, "%s: %s: %d\n", name, what, found[what]); err != nil {
			return err
		}
	}
	return service.WithExitCode(exitMissing, errors.New("the user is not erased"))
}
