package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/google/uuid"
)

// deleteUsers is the command "users delete". It reads ids, one a line. It deletes their
// accounts, and keeps ids without an account from being imported. It can be repeated.
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
		deleted, recorded := 0, 0
		lines := bufio.NewScanner(in)
		for n := 1; lines.Scan(); n++ {
			text := strings.TrimSpace(lines.Text())
			if text == "" {
				continue
			}
			id, err := uuid.Parse(text)
			if err != nil {
				return fmt.Errorf("line %d: %w", n, err)
			}
			found, err := d.accounts.Erase(ctx, id.String())
			if err != nil {
				return fmt.Errorf("line %d: account %s: %w", n, id, err)
			}
			recorded++
			if found {
				deleted++
			}
		}
		if err := lines.Err(); err != nil {
			return fmt.Errorf("read %s: %w", args[0], err)
		}
		_, err := fmt.Fprintf(os.Stdout, "accounts deleted: %d; ids that will not be used again: %d\n", deleted, recorded)
		return err
	})
}
