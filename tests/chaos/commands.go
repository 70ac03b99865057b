package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// commandTimeout bounds a command of a service: it waits for its database.
const commandTimeout = 10 * time.Second

// command runs a command of a service, as an operator does. It returns the exit code and
// the output; the error says that the command did not run to its end.
func (s *stack) command(ctx context.Context, service string, args ...string) (code int, output string, err error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	first := s.of(service)[0]
	cmd := exec.CommandContext(ctx, first.binary, args...)
	cmd.Dir, cmd.Env = first.dir, append(os.Environ(), first.env...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	output = strings.TrimSpace(string(out))
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return exit.ExitCode(), output, nil
	}
	if err != nil {
		return 0, output, fmt.Errorf("%s %s: %w", service, strings.Join(args, " "), errors.Join(err, ctx.Err()))
	}
	return 0, output, nil
}

// operate runs a command that must succeed.
func (s *stack) operate(ctx context.Context, service string, args ...string) error {
	code, output, err := s.command(ctx, service, args...)
	if err == nil && code != 0 {
		err = fmt.Errorf("%s %s: exit code %d: %s", service, strings.Join(args, " "), code, output)
	}
	return err
}
