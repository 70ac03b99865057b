package stack

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const databaseTimeout = 30 * time.Second

// databases creates a role and a database for each service, unless they exist, and returns
// the services' URLs by database. A service cannot connect to the database of another.
func (s *stack) databases(ctx context.Context, adminURL string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	if _, err := databaseURL(adminURL, "", ""); err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, adminURL)
	if err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))

	urls := map[string]string{}
	for _, svc := range services {
		if svc.database == "" {
			continue
		}
		name := "headgate_" + svc.database
		password, err := s.secret("DATABASE_PASSWORD_" + strings.ToUpper(svc.database))
		if err != nil {
			return nil, err
		}
		if err := makeDatabase(ctx, conn, name, password); err != nil {
			return nil, fmt.Errorf("make database %s: %w", name, err)
		}
		if urls[svc.database], err = databaseURL(adminURL, name, password); err != nil {
			return nil, err
		}
	}
	return urls, nil
}

// makeDatabase quotes its values itself, because these statements take no parameters.
func makeDatabase(ctx context.Context, conn *pgx.Conn, name, password string) error {
	roleExists, databaseExists, err := existing(ctx, conn, name)
	if err != nil {
		return err
	}
	ident := pgx.Identifier{name}.Sanitize()
	verb := "CREATE"
	if roleExists {
		verb = "ALTER"
	}
	statements := []string{verb + " ROLE " + ident + " LOGIN PASSWORD '" + strings.ReplaceAll(password, "'", "''") + "'"}
	if !databaseExists {
		// Unless the current user is a superuser, it must be a member of the role of the owner.
		statements = append(statements, "GRANT "+ident+" TO CURRENT_USER", "CREATE DATABASE "+ident+" OWNER "+ident)
	}
	statements = append(statements, "REVOKE ALL ON DATABASE "+ident+" FROM PUBLIC")
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func existing(ctx context.Context, conn *pgx.Conn, name string) (role, database bool, err error) {
	const query = `
		SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1),
		       EXISTS (SELECT FROM pg_database WHERE datname = $1)`
	err = conn.QueryRow(ctx, query, name).Scan(&role, &database)
	return role, database, err
}

// databaseURL returns the URL of the role's database on the admin's server.
func databaseURL(adminURL, name, password string) (string, error) {
	u, err := url.Parse(adminURL)
	if err != nil || u.Host == "" && !u.Query().Has("host") || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		// The error of Parse contains the password.
		return "", errors.New("DATABASE_URL: want postgres://user:password@host:port/database")
	}
	u.User, u.Path = url.UserPassword(name, password), "/"+name
	return u.String(), nil
}
