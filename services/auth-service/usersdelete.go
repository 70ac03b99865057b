package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/google/uuid"

	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// deleteUsers is the command "users delete". It reads ids, one a line. It deletes their
// accounts, and keeps ids without an account from being imported. It can be repeated. A line
// that is not an id, or that names the last active administrator, is reported; the others are
// done, and the command fails at the end.
func deleteUsers(ctx context.Context, cfg Config, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: auth-service users delete FILE")
	}
	in, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer in.Close()
	return withDomain(ctx, cfg, func(ctx context.Context, d domain) error {
		e := eraser{accounts: d.accounts}
		lines := bufio.NewScanner(in)
		for n := 1; lines.Scan(); n++ {
			if err := e.erase(ctx, n, string(trimLine(lines.Bytes(), n))); err != nil {
				return fmt.Errorf("line %d: %w", n, err)
			}
		}
		if err := lines.Err(); err != nil {
			return fmt.Errorf("read %s: %w", args[0], err)
		}
		if _, err := fmt.Fprintf(os.Stdout, "accounts deleted: %d; ids that will not be used again: %d\n", e.deleted, e.recorded); err != nil {
			return err
		}
		if e.refused > 0 {
			return fmt.Errorf("lines refused: %d", e.refused)
		}
		return nil
	})
}

type eraser struct {
	accounts                   *account.Accounts
	deleted, recorded, refused int
}

// erase deletes the account with the id in a line. It fails if a later line would fail, too.
func (e *eraser) erase(ctx context.Context, line int, text string) error {
	if text == "" {
		return nil
	}
	id, err := uuid.Parse(text)
	if err != nil {
		return e.refuse(line, err)
	}
	found, err := e.accounts.Erase(ctx, id.String())
	if err != nil {
		err = fmt.Errorf("account %s: %w", id, err)
	}
	switch {
	case errors.Is(err, account.ErrLastAdmin):
		return e.refuse(line, err)
	case err != nil:
		return err
	case found:
		e.deleted++
	}
	e.recorded++
	return nil
}

func (e *eraser) refuse(line int, reason error) error {
	e.refused++
	_, err := fmt.Fprintf(os.Stderr, "line %d: %v\n", line, reason)
	return err
}
