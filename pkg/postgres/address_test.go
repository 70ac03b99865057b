package postgres_test

import (
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestREL96Addresses is REL-96: every connection string of libpq that names a host is
// accepted, in both variables. What is wrong is named without any part of the password.
func TestREL96Addresses(t *testing.T) {
	t.Parallel()
	for address, good := range map[string]bool{
		"postgres://u:p@h/db":                                                                 true,
		"postgresql://u@h:5432/db":                                                            true,
		"postgres://u:p@[::1]:5/x":                                                            true,
		"postgres:///db?host=/run":                                                            true,
		"host=/run user=x dbname=db":                                                          true,
		"postgres:///headgate_auth?host=/var/run/postgresql":                                  true,
		"postgres://u:p@/headgate_auth?host=/cloudsql/project:region:db":                      true,
		"postgres://%2Fvar%2Frun%2Fpostgresql/db":                                             true,
		"postgres://u:p%23%2Fw@db:5432/x?sslmode=verify-full":                                 true,
		"postgres://u:p@a:5432,b:5432/x?target_session_attrs=read-write":                      true,
		"host=a,b port=1,2 user=x password='geheim it' dbname=q target_session_attrs=primary": true,
		"":                                    false,
		"mysql://u:geheim@h/db":               false,
		"geheim":                              false,
		"user=u password=x:y host=h dbname=d": true,
		"host = h dbname=d":                   true,
		"service=":                            false,
		"password='a host=b' dbname=x":        false,
		"host='' dbname=x":                    false,
		"postgres:///db":                      false,
		"postgres://u:geheim@/db":             false,
		"user=x password=geheim dbname=db":    false,
		"postgres://u:geheim/w@h/db":          false,
		"postgres://u:geheim@h:99999/db":      false,
		"postgres://u:geheim@h/db?sslmode=x":  false,
		"host=h password='geheim":             false,
		"postgres://u:geheim@h/db?sslmode=verify-full&sslrootcert=/absent": false,
	} {
		for variable, cfg := range map[string]postgres.Database{
			"DATABASE_URL":        {DatabaseURL: service.Secret(address), DatabaseMaxConns: 2},
			"DATABASE_DIRECT_URL": {DatabaseURL: "postgres://h/db", DatabaseDirectURL: service.Secret(address), DatabaseMaxConns: 2},
		} {
			if variable == "DATABASE_DIRECT_URL" && address == "" {
				continue // It is optional.
			}
			err := cfg.Validate()
			if (err == nil) != good || err != nil && (!strings.HasPrefix(err.Error(), variable+": ") || strings.Contains(err.Error(), "geheim")) {
				t.Errorf("%s=%s: Validate() = %v", variable, address, err)
			}
			if strings.Contains(address, "/absent") && !strings.Contains(err.Error(), "open /absent: no such file") {
				t.Errorf("%s=%s: Validate() = %v, want the file named", variable, address, err)
			}
		}
	}
}

// TestREL96Sockets is REL-96: the database is reached through a Unix socket in each form.
func TestREL96Sockets(t *testing.T) {
	t.Parallel()
	at, folder := readAddress(t), t.TempDir()
	testkit.Forward(t, filepath.Join(folder, ".s.PGSQL.5432"), at.Host)
	name := strings.TrimPrefix(at.Path, "/")
	password, _ := at.User.Password()
	for _, address := range []string{
		"postgres:///" + name + "?host=" + folder + "&user=" + at.User.Username() + "&password=" + password,
		"postgres://" + at.User.String() + "@/" + name + "?host=" + folder,
		"postgres://" + at.User.String() + "@" + url.QueryEscape(folder) + "/" + name,
		"host=" + folder + " user=" + at.User.Username() + " password='" + password + "' dbname=" + name,
	} {
		wantConnected(t, address)
	}
}

// TestREL96SeveralHosts is REL-96: of several hosts, the one that accepts changes is found,
// whether another is down or read-only, as a standby is.
func TestREL96SeveralHosts(t *testing.T) {
	t.Parallel()
	at, standby := readAddress(t), readAddress(t)
	_, err := testkit.OpenDatabase(t, standby.String()).Exec(t.Context(),
		`ALTER DATABASE `+strings.TrimPrefix(standby.Path, "/")+` SET default_transaction_read_only = on`)
	if err != nil {
		t.Fatal(err)
	}
	pooler, err := url.Parse(testkit.StartPooler(t, standby.String(), testkit.SessionPooling,
		"ignore_startup_parameters = statement_timeout, lock_timeout, idle_in_transaction_session_timeout").URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, first := range []string{"127.0.0.1:1", pooler.Host} {
		several := *at
		several.Host = first + "," + at.Host
		several.RawQuery = "sslmode=disable&target_session_attrs=read-write"
		wantConnected(t, several.String())
	}
}

func readAddress(t *testing.T) *url.URL {
	t.Helper()
	at, err := url.Parse(testkit.DatabaseURL(t))
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func wantConnected(t *testing.T, address string) {
	t.Helper()
	pool, err := postgres.Open(t.Context(), postgres.Database{DatabaseURL: service.Secret(address), DatabaseMaxConns: 2}, testkit.Log(t))
	if err != nil {
		t.Errorf("Open(%s) = %v", address, err)
		return
	}
	pool.Close()
}
