package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

const adminName = "Administrator"

// ensureAdmin creates the first administrator if the environment names one.
func ensureAdmin(ctx context.Context, s *service.Service, accounts *account.Accounts, cfg Config) error {
	if cfg.AdminEmail == "" {
		return nil
	}
	created, err := accounts.EnsureAdmin(ctx, account.SignUp{
		Email: cfg.AdminEmail, Password: cfg.AdminPassword.Reveal(), Name: adminName,
	})
	switch {
	case errors.Is(err, account.ErrEmailTaken):
		// Another replica created it first, or the address has an account that is not an
		// administrator's. Such an account is not promoted without its owner's knowledge.
		s.Log.WarnContext(ctx, "first administrator not created: ADMIN_EMAIL already has an account")
	case err != nil:
		return fmt.Errorf("create first administrator from ADMIN_EMAIL and ADMIN_PASSWORD: %w", err)
	case created:
		s.Log.InfoContext(ctx, "first administrator created")
	}
	return nil
}

// createAdmin is the command "admin create", for deployments that keep passwords out of
// the environment.
func createAdmin(ctx context.Context, cfg Config, args []string) error {
	if len(args) < 1 || len(args) > 2 {
		return errors.New("usage: auth-service admin create EMAIL [NAME] < password")
	}
	display := adminName
	if len(args) == 2 {
		display = args[1]
	}
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read password: %w", err)
	}
	return withDomain(ctx, cfg, func(ctx context.Context, d domain) error {
		created, err := d.accounts.CreateAdmin(ctx, account.SignUp{
			Email: args[0], Password: strings.TrimRight(line, "\r\n"), Name: display,
		})
		if err != nil {
			return fmt.Errorf("create administrator: %w", err)
		}
		_, err = fmt.Fprintln(os.Stdout, "administrator created:", created.ID)
		return err
	})
}
