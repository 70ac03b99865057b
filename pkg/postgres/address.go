package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headgate/headgate/pkg/service"
)

// Database is the part of the configuration that says where the database is.
type Database struct {
	DatabaseURL       service.Secret `envconfig:"DATABASE_URL" ignored:"true" required:"true" desc:"postgres://user:password@host:port/database of the service's own database, or any other connection string of libpq: Unix sockets, several hosts, key=value. It may lead to a pooler such as PgBouncer."`
	DatabaseDirectURL service.Secret `envconfig:"DATABASE_DIRECT_URL" ignored:"true" desc:"The same database without the pooler to which DATABASE_URL leads, for what needs a session: migrations, and notifications of new events. Without it, events behind a pooler are polled for."`
	DatabasePassword  service.Secret `envconfig:"DATABASE_PASSWORD" ignored:"true" desc:"Password of the user in DATABASE_URL and DATABASE_DIRECT_URL, instead of one in the URLs. No character of it needs to be encoded."`
	DatabaseMaxConns  int32          `envconfig:"DATABASE_MAX_CONNS" default:"20" desc:"Connections that one instance may hold."`
}

// DatabaseConfig lets commands find this part in a service's configuration.
func (d Database) DatabaseConfig() Database { return d }

// Validate implements service.Validator.
func (d Database) Validate() error {
	_, err := d.parse("DATABASE_URL", d.DatabaseURL)
	if d.DatabaseDirectURL != "" {
		_, fault := d.parse("DATABASE_DIRECT_URL", d.DatabaseDirectURL)
		err = errors.Join(err, fault)
	}
	if d.DatabaseMaxConns < 2 {
		err = errors.Join(err, errors.New("DATABASE_MAX_CONNS: want 2 or more"))
	}
	return err
}

var (
	isURL    = regexp.MustCompile(`^postgres(?:ql)?://`)
	urlHost  = regexp.MustCompile(`^[a-z]+://(?:(?:[^/?]*@)?[^/?@]+(?:[/?]|$)|.*[?&]host=.)`)
	keyValue = regexp.MustCompile(`(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s\\]|\\.)*)`)
)

// namesHost reports whether a connection string says where the server is. libpq would
// otherwise look for a server on this machine.
func namesHost(text string) bool {
	if isURL.MatchString(text) {
		return urlHost.MatchString(text)
	}
	return slices.ContainsFunc(keyValue.FindAllStringSubmatch(text, -1), func(pair []string) bool {
		return (pair[1] == "host" || pair[1] == "service") && strings.Trim(pair[2], "'") != ""
	})
}

// parse reads the connection string in a variable, and adds the password. Its errors contain
// nothing of the string, which contains a password; those of pgx could.
func (d Database) parse(variable string, text service.Secret) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(text.Reveal())
	if file, ok := errors.AsType[*fs.PathError](err); ok {
		return nil, fmt.Errorf("%s: %w", variable, file) // such as sslrootcert
	}
	if err != nil || !namesHost(text.Reveal()) {
		return nil, fmt.Errorf("%s: want postgres://user:password@host:port/database, with ?host=/path for a Unix socket; special characters in the password must be percent-encoded, or set DATABASE_PASSWORD", variable)
	}
	if d.DatabasePassword != "" {
		cfg.ConnConfig.Password = d.DatabasePassword.Reveal()
	}
	cfg.ConnConfig.ConnectTimeout = connectTimeout
	return cfg, nil
}

const connectTimeout = 5 * time.Second
