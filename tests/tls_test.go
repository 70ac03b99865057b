package tests

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/localserver/child"
	"github.com/headgate/headgate/pkg/testkit"
)

// encrypted is a system in which every connection but that to the mailbox is encrypted, with
// certificates of a private authority.
type encrypted struct {
	t                 *testing.T
	authority, other  *testkit.Authority
	certFile, keyFile string
	programs          string            // folder
	empty             string            // folder
	postgres, redis   string            // hosts and ports
	public            map[string]string // HTTP_ADDR of each service
	internal          map[string]string // OPS_ADDR of each service
}

func newEncrypted(t *testing.T) *encrypted {
	t.Helper()
	dir := t.TempDir()
	e := &encrypted{
		t: t, authority: testkit.NewAuthority(t), other: testkit.NewAuthority(t),
		certFile: filepath.Join(dir, "tls.pem"), keyFile: filepath.Join(dir, "tls.key"),
		programs: filepath.Join(dir, "bin"), empty: t.TempDir(),
		public: map[string]string{}, internal: map[string]string{},
	}
	e.authority.Issue(e.certFile, e.keyFile)
	e.startPostgres()
	e.startRedis()
	for _, name := range ownServices {
		e.public[name], e.internal[name] = freeAddress(t), freeAddress(t)
		build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(e.programs, name), "./services/"+name)
		build.Dir, build.Env = root, environment()
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	return e
}

// startPostgres starts a server that accepts only encrypted connections. It writes the files
// itself, because it may run as another user.
func (e *encrypted) startPostgres() {
	e.t.Helper()
	dir, err := os.MkdirTemp("", "encrypted-")
	if err != nil {
		e.t.Fatal(err)
	}
	server, err := localserver.StartPostgres(e.t.Context(), localserver.Options{Dir: filepath.Join(dir, "postgres")})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		if err := errors.Join(server.Stop(context.Background()), localserver.Clean(context.Background(), dir)); err != nil {
			e.t.Error(err)
		}
	})
	db, err := pgx.Connect(e.t.Context(), server.URL)
	if err != nil {
		e.t.Fatal(err)
	}
	defer db.Close(e.t.Context())
	write := func(file, text string) string {
		return "COPY (SELECT unnest(string_to_array('" + strings.TrimSpace(text) + "', E'\\n'))) TO PROGRAM 'umask 077; cat > " + file + "'"
	}
	statements := []string{
		write("server.crt", readFile(e.t, e.certFile)), write("server.key", readFile(e.t, e.keyFile)), write("pg_hba.conf", "hostssl all all 127.0.0.1/32 trust"),
		"ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()",
	}
	for _, name := range ownServices {
		statements = append(statements, `CREATE DATABASE "`+name+`"`)
	}
	for _, statement := range statements {
		if _, err := db.Exec(e.t.Context(), statement); err != nil {
			e.t.Fatalf("%.40s: %v", statement, err)
		}
	}
	address, err := url.Parse(server.URL)
	if err != nil {
		e.t.Fatal(err)
	}
	e.postgres = address.User.String() + "@" + address.Host
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func (e *encrypted) databaseURL(name string, authority *testkit.Authority) string {
	return "postgres://" + e.postgres + "/" + name + "?sslmode=verify-full&sslrootcert=" + authority.File
}

// startRedis starts a server that accepts only encrypted connections.
func (e *encrypted) startRedis() {
	e.t.Helper()
	e.redis = freeAddress(e.t)
	_, port, err := net.SplitHostPort(e.redis)
	if err != nil {
		e.t.Fatal(err)
	}
	binary, err := localserver.FindRedis("")
	if err != nil {
		e.t.Fatal(err)
	}
	e.run(exec.Command(binary, "--port", "0", "--tls-port", port, "--bind", "127.0.0.1", "--save", "", "--tls-auth-clients", "no",
		"--tls-cert-file", e.certFile, "--tls-key-file", e.keyFile, "--tls-ca-cert-file", e.authority.File))
}

func (e *encrypted) run(cmd *exec.Cmd) *testkit.Buffer {
	e.t.Helper()
	log := &testkit.Buffer{}
	cmd.Dir, cmd.Stdout, cmd.Stderr = e.t.TempDir(), log, log
	process, err := child.Start(cmd, child.Signals{})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		process.Kill()
		if e.t.Failed() {
			e.t.Logf("log of %s:\n%s", filepath.Base(cmd.Path), log)
		}
	})
	return log
}

// environment returns the environment of a service that trusts one authority alone.
func (e *encrypted) environment(name string, trusted *testkit.Authority) []string {
	https := func(service string) string { return "https://" + e.public[service] }
	return []string{
		"PATH=" + os.Getenv("PATH"), "ENV=development", "LOCAL_DIR=" + filepath.Join(filepath.Dir(e.programs), "local"), "LOG_FORMAT=json", "DRAIN_DELAY=0s",
		"HTTP_ADDR=" + e.public[name], "OPS_ADDR=" + e.internal[name], "TLS_CERT_FILE=" + e.certFile, "TLS_KEY_FILE=" + e.keyFile,
		"SSL_CERT_FILE=" + trusted.File, "SSL_CERT_DIR=" + e.empty,
		"DATABASE_URL=" + e.databaseURL(name, trusted), "REDIS_URL=rediss://" + e.redis + "/0",
		"JWKS_URL=" + https("auth-service") + "/.well-known/jwks.json", "PUBLIC_BASE_URL=https://localhost",
		"MAIL_FROM=Headgate <no-reply@example.com>", "SMTP_URL=" + facts(e.t).SMTPURL,
		"AUTH_URL=" + https("auth-service"), "USER_URL=" + https("user-service"), "EMAIL_URL=" + https("email-service"), "AUDIT_URL=" + https("audit-service"),
	}
}

// start starts a service and waits until the health check of its container passes.
func (e *encrypted) start(name string) {
	e.t.Helper()
	program, env := filepath.Join(e.programs, name), e.environment(name, e.authority)
	cmd := exec.Command(program)
	cmd.Env = env
	e.run(cmd)
	testkit.Eventually(e.t, func() error {
		check := exec.CommandContext(e.t.Context(), program, "healthcheck")
		check.Env = env
		if out, err := check.CombinedOutput(); err != nil {
			return fmt.Errorf("healthcheck of %s: %w: %s", name, err, out)
		}
		return nil
	})
}

// TestSEC132EveryConnectionIsEncrypted: with certificates, every connection between the
// client, the gateway, the services, Postgres and Redis is encrypted. Plain connections are
// refused, and so is a server whose certificate is from another authority.
func TestSEC132EveryConnectionIsEncrypted(t *testing.T) {
	t.Parallel()
	e := newEncrypted(t)
	for _, name := range ownServices {
		e.start(name)
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: e.authority.Client()}, Timeout: 10 * time.Second}
	defer c.CloseIdleConnections()
	call := func(address, route, body, bearer string) (int, json.RawMessage) {
		t.Helper()
		method, path, _ := strings.Cut(route, " ")
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+address+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if bearer != "" {
			req.Header.Set("Authorization", "Bearer "+bearer)
		}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var a answer
		if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, a.Data
	}
	email := newEmail()
	body := `{"email":"` + email + `","password":"` + goodPassword + `","name":"Ada"}`
	remember([]byte(body))
	status, data := call(e.public["gateway"], "POST /api/v1/auth/signup", body, "")
	var in signedIn
	if err := json.Unmarshal(data, &in); status != http.StatusCreated || err != nil {
		t.Fatalf("sign-up = %d, %v", status, err)
	}
	remember(data)
	awaitLink(t, email) // It went through Redis.
	for _, path := range []string{"/api/v1/user/me", "/api/v1/audit/me"} {
		if status, _ := call(e.public["gateway"], "GET "+path, "", in.Tokens.AccessToken); status != http.StatusOK {
			t.Errorf("%s = %d", path, status)
		}
	}
	e.wantNoPlainConnection()
	e.wantOtherAuthorityRefused(call)
}

func (e *encrypted) wantNoPlainConnection() {
	e.t.Helper()
	db, err := pgx.Connect(e.t.Context(), e.databaseURL("postgres", e.authority))
	if err != nil {
		e.t.Fatal(err)
	}
	defer db.Close(e.t.Context())
	const count = `
		SELECT count(*), count(*) FILTER (WHERE NOT ssl), count(DISTINCT datname)
		FROM pg_stat_ssl
		JOIN pg_stat_activity USING (pid)
		WHERE backend_type = 'client backend'`
	var all, plain, databases int
	if err := db.QueryRow(e.t.Context(), count).Scan(&all, &plain, &databases); err != nil || plain > 0 || databases < len(ownServices) {
		e.t.Errorf("%d of %d connections in %d databases are not encrypted, %v", plain, all, databases, err)
	}
	for _, name := range ownServices {
		req, err := http.NewRequestWithContext(e.t.Context(), http.MethodGet, "http://"+e.public[name]+"/livez", http.NoBody)
		if err != nil {
			e.t.Fatal(err)
		}
		if res, err := httpClient.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode < 400 {
				e.t.Errorf("%s answers a plain request with %d", name, res.StatusCode)
			}
		}
	}
	client := redis.NewClient(&redis.Options{Addr: e.redis, MaxRetries: -1})
	defer client.Close()
	if err := client.Ping(e.t.Context()).Err(); err == nil {
		e.t.Error("Redis answers a plain connection")
	}
	if db, err := pgx.Connect(e.t.Context(), "postgres://"+e.postgres+"/postgres?sslmode=disable"); err == nil {
		db.Close(e.t.Context())
		e.t.Error("Postgres accepts a plain connection")
	}
}

// wantOtherAuthorityRefused starts a second gateway and a command that trust another
// authority.
func (e *encrypted) wantOtherAuthorityRefused(call func(address, route, body, bearer string) (int, json.RawMessage)) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), 15*time.Second) // It waits for the database.
	defer cancel()
	command := exec.CommandContext(ctx, filepath.Join(e.programs, "auth-service"), "keys", "list")
	command.Env = e.environment("auth-service", e.other)
	if out, err := command.CombinedOutput(); err == nil || !strings.Contains(string(out), "certificate") {
		e.t.Errorf("a command that trusts another authority: %v %s", err, out)
	}
	e.public["gateway"], e.internal["gateway"] = freeAddress(e.t), freeAddress(e.t)
	gateway := exec.Command(filepath.Join(e.programs, "gateway"))
	gateway.Env = e.environment("gateway", e.other)
	log := e.run(gateway)
	testkit.Eventually(e.t, func() error {
		conn, err := (&tls.Dialer{Config: e.authority.Client()}).DialContext(e.t.Context(), "tcp", e.public["gateway"])
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if status, _ := call(e.public["gateway"], "POST /api/v1/auth/login", `{"email":"a@example.com","password":"x"}`, ""); status < 500 {
		e.t.Errorf("a gateway that trusts another authority answers %d\n%s", status, log)
	}
}
