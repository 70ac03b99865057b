// Compose brings docker-compose.yml up in a copy of the checkout and under a name of its own,
// uses it, breaks it and changes it, as `make compose-test`. It leaves nothing behind.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "compose-test:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	keep := flag.Bool("keep", false, "leave the system running")
	project := flag.String("project", "headgate-test", "name of the Compose project")
	flag.Parse()
	e, err := findEngine(ctx, *project)
	if err != nil {
		return err
	}
	s := &system{engine: e, began: time.Now()}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	defer func() {
		if *keep {
			fmt.Printf("kept in %s as project %s\n", e.dir, *project)
			return
		}
		s.remove(context.WithoutCancel(ctx)) // Also after an interrupt.
	}()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"build the images", s.build},
		{"initialize Postgres without the databases", s.initializeAlone},
		{"start everything", s.up},
		{"sign up, read the mail, sign in as administrator", s.use},
		{"replace user-service under load", s.replace},
		{"kill user-service under load", s.crash},
		{"inspect the containers", s.inspect},
		{"build user-service after one changed line", s.rebuild},
		{"change a database password", s.changePassword},
		{"lose a database, and start again", s.loseDatabase},
		{"stop and start everything", s.restart},
	} {
		began := time.Now()
		if err := step.do(ctx); err != nil {
			s.explain(context.WithoutCancel(ctx))
			return fmt.Errorf("%s: %w", step.name, err)
		}
		s.say("%s: %.1f s", step.name, time.Since(began).Seconds())
	}
	return nil
}
