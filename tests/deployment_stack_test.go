package tests

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/localserver/child"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/tests/internal/redisserver"
)

// deployment is the system of docker-compose.yml, without containers: the programs that
// deploy/Dockerfile builds, Postgres with deploy/postgres/setup.sh, and Redis with
// deploy/redis/start.sh. Each program has the environment of its container; only host
// names and ports are those of this machine. The mailbox is that of the shared stack.
type deployment struct {
	t        *testing.T
	settings map[string]string // .env
	project  *types.Project
	redis    *deployedRedis
	hosts    *strings.Replacer // from the network of the containers to this machine
	public   map[string]string // HTTP_ADDR of each service
	internal map[string]string // OPS_ADDR of each service
	running  map[string]*child.Process
	logs     map[string]*testkit.Buffer
}

// ownServices are the services that are built from this repository, in the order in which
// they can start.
var ownServices = []string{"auth-service", "user-service", "email-service", "audit-service", "gateway"}

// startDeployment starts everything with the .env that tools/env.sh writes, and with settings
// such as RECONCILE_INTERVAL=1s in addition.
func startDeployment(t *testing.T, settings ...string) *deployment {
	t.Helper()
	d := &deployment{
		t: t, public: map[string]string{}, internal: map[string]string{},
		running: map[string]*child.Process{}, logs: map[string]*testkit.Buffer{},
	}
	for _, name := range ownServices {
		d.public[name], d.internal[name] = freeAddress(t), freeAddress(t)
	}
	d.configure(settings)
	passwords := map[string]string{}
	for _, user := range redisserver.Users {
		passwords[user] = d.environment("redis")[redisserver.Variable(user)]
	}
	d.redis = startDeployedRedis(t, passwords)
	names := []string{
		"@postgres:5432", "@" + d.startPostgres(), "@redis:6379", "@" + d.redis.Address(),
		"file:///var/lib/headgate/blobs", "file://" + filepath.Join(t.TempDir(), "blobs"), // the volume
	}
	for _, name := range ownServices {
		names = append(names, name+":8080", d.public[name])
	}
	d.hosts = strings.NewReplacer(names...)
	for _, name := range ownServices {
		d.start(name)
	}
	return d
}

func freeAddress(t *testing.T) string {
	t.Helper()
	port, err := localserver.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// configure writes .env as an operator does, and reads docker-compose.yml with it.
func (d *deployment) configure(settings []string) {
	d.t.Helper()
	dir := d.t.TempDir()
	for _, name := range []string{"tools/env.sh", ".env.example", "docker-compose.yml"} {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			d.t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			d.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			d.t.Fatal(err)
		}
	}
	script, file := filepath.Join(dir, "tools/env.sh"), filepath.Join(dir, ".env")
	source, err := filepath.Abs(root)
	if err != nil {
		d.t.Fatal(err)
	}
	write := exec.CommandContext(d.t.Context(), "bash", script)
	write.Env = append(os.Environ(), "HEADGATE_SOURCE="+source)
	if out, err := write.CombinedOutput(); err != nil {
		d.t.Fatalf("tools/env.sh: %v\n%s", err, out)
	}
	written := d.readSettings(file)
	edited := written + "\nPUBLIC_BASE_URL=http://" + d.public["gateway"] + "\n" + strings.Join(settings, "\n") + "\n"
	if err := os.WriteFile(file, []byte(edited), 0o600); err != nil {
		d.t.Fatal(err)
	}
	options, err := cli.NewProjectOptions([]string{filepath.Join(dir, "docker-compose.yml")}, cli.WithWorkingDirectory(dir), cli.WithEnvFiles(), cli.WithDotEnv)
	if err != nil {
		d.t.Fatal(err)
	}
	if d.project, err = options.LoadProject(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
	for name, service := range d.project.Services {
		if built := service.Build != nil && service.Build.Args["SERVICE"] != nil; built != slices.Contains(ownServices, name) {
			d.t.Errorf("docker-compose.yml builds %s: %v, but ownServices is %v", name, built, ownServices)
		}
	}
}

// readSettings reads .env and checks that every secret is long and its own.
func (d *deployment) readSettings(file string) string {
	d.t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		d.t.Fatal(err)
	}
	d.settings = map[string]string{}
	secrets := map[string]string{}
	for _, setting := range regexp.MustCompile(`(?m)^([A-Z_]+)=(.*)$`).FindAllStringSubmatch(string(text), -1) {
		name, value := setting[1], setting[2]
		d.settings[name] = value
		if !strings.HasSuffix(name, "_PASSWORD") && !strings.HasSuffix(name, "_SECRET") && !strings.HasSuffix(name, "_KEY") {
			continue
		}
		if other, ok := secrets[value]; ok || len(value) < 32 {
			d.t.Errorf("the secret %s has %d characters and is that of %q", name, len(value), other)
		}
		secrets[value] = name
	}
	return string(text)
}

// environment returns the environment of a container.
func (d *deployment) environment(service string) map[string]string {
	values := map[string]string{}
	for name, value := range d.project.Services[service].Environment {
		if value != nil {
			values[name] = *value
		}
	}
	return values
}

// startPostgres starts a new server, runs the script of the deployment as the image does,
// and returns its host and port.
func (d *deployment) startPostgres() string {
	d.t.Helper()
	dir, err := os.MkdirTemp("", "deployment-") // The account of Postgres cannot reach t.TempDir.
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		if err := localserver.Clean(context.Background(), dir); err != nil {
			d.t.Error(err)
		}
	})
	server, err := localserver.StartPostgres(d.t.Context(), localserver.Options{Dir: filepath.Join(dir, "postgres"), Durable: true})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			d.t.Error(err)
		}
	})
	address, err := url.Parse(server.URL)
	if err != nil {
		d.t.Fatal(err)
	}
	password, _ := address.User.Password()
	setup := func(mode string, settings ...string) (string, error) {
		script := exec.CommandContext(d.t.Context(), "sh", filepath.Join(root, "deploy/postgres/setup.sh"), mode)
		script.Env = append(os.Environ(), "PGHOST="+address.Hostname(), "PGPORT="+address.Port(), "PGPASSWORD="+password, "PGSSLMODE=disable")
		for name, value := range d.environment("postgres-setup") {
			if strings.HasSuffix(name, "_DB_PASSWORD") {
				script.Env = append(script.Env, name+"="+value)
			}
		}
		script.Env = append(script.Env, "POSTGRES_USER="+address.User.Username(), "POSTGRES_PASSWORD="+password)
		script.Env = append(script.Env, settings...)
		out, err := script.CombinedOutput()
		return string(out), err
	}
	wantRepaired(d.t, setup)
	return address.Host
}

// wantRepaired is REL-98: a server whose first initialization ended half-way is not healthy and
// says what is missing. The next start completes it, and a later one can follow.
func wantRepaired(t *testing.T, setup func(mode string, settings ...string) (string, error)) {
	t.Helper()
	for _, missing := range []string{"headgate_auth headgate_user headgate_email headgate_audit", "headgate_user headgate_email headgate_audit"} {
		if out, err := setup("check"); err == nil || !strings.Contains(out, "missing databases: "+missing+";") {
			t.Errorf("setup.sh check = %v, %s, want the missing databases %s", err, out, missing)
		}
		// It ends at the second service.
		if out, err := setup("", "USER_DB_PASSWORD="); err == nil {
			t.Errorf("setup.sh without a password = nil, %s", out)
		}
	}
	for _, mode := range []string{"", "", "check"} {
		if out, err := setup(mode); err != nil {
			t.Fatalf("setup.sh %s (it needs psql): %v\n%s", mode, err, out)
		}
	}
}

// processEnvironment returns the environment of a service's container, for this machine.
func (d *deployment) processEnvironment(service string) []string {
	environment := []string{"PATH=" + os.Getenv("PATH")}
	for name, value := range d.environment(service) {
		environment = append(environment, name+"="+d.hosts.Replace(value))
	}
	environment = append(environment, "HTTP_ADDR="+d.public[service], "OPS_ADDR="+d.internal[service])
	if service == "email-service" {
		environment = append(environment, "SMTP_URL="+facts(d.t).SMTPURL)
	}
	return environment
}

// start starts a service and waits until the health check of its container passes. Settings
// such as EVENT_SIGNATURES=require override its environment.
func (d *deployment) start(service string, settings ...string) {
	d.t.Helper()
	program, environment := image(d.t, service), append(d.processEnvironment(service), settings...)
	cmd := exec.Command(program)
	log := &testkit.Buffer{}
	cmd.Env, cmd.Dir = environment, d.t.TempDir()
	cmd.Stdout, cmd.Stderr = log, log
	process, err := child.Start(cmd, child.Signals{})
	if err != nil {
		d.t.Fatal(err)
	}
	d.running[service], d.logs[service] = process, log
	d.t.Cleanup(func() {
		process.Kill()
		if d.t.Failed() {
			d.t.Logf("log of %s:\n%s", service, log)
		}
	})
	health := d.project.Services[service].HealthCheck.Test // CMD /service healthcheck
	testkit.Eventually(d.t, func() error {
		out, err := d.command(service, health[2:]...)
		if err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(health, " "), err, out)
		}
		return nil
	})
}

// command runs a command of a service in its container, and returns its standard output. The
// error says that its exit code is not 0.
func (d *deployment) command(service string, args ...string) (string, error) {
	cmd := exec.CommandContext(d.t.Context(), image(d.t, service), args...)
	cmd.Env = d.processEnvironment(service)
	out, err := cmd.Output()
	return string(out), err
}

// database connects to the database of a service, with its role.
func (d *deployment) database(service string) *pgx.Conn {
	d.t.Helper()
	conn, err := pgx.Connect(d.t.Context(), d.databaseURL(service).String())
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// databaseURL returns the URL of the database of a service, with the password of its role.
func (d *deployment) databaseURL(service string) *url.URL {
	d.t.Helper()
	environment := d.environment(service)
	u, err := url.Parse(d.hosts.Replace(environment["DATABASE_URL"]))
	if err != nil {
		d.t.Fatal(err)
	}
	u.User = url.UserPassword(u.User.Username(), environment["DATABASE_PASSWORD"])
	return u
}

// client returns a client of the deployment's gateway.
func (d *deployment) client() *client {
	return &client{t: d.t, gateway: "http://" + d.public["gateway"]}
}

// admin returns a client with a session of the first administrator.
func (d *deployment) admin() *client {
	d.t.Helper()
	admin := d.client()
	admin.login(d.settings["ADMIN_EMAIL"], d.settings["ADMIN_PASSWORD"])
	return admin
}

// metrics returns the metrics of a service, in the text format.
func (d *deployment) metrics(service string) string {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, "http://"+d.internal[service]+"/metrics", http.NoBody)
	if err != nil {
		d.t.Fatal(err)
	}
	res, err := httpClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	text, err := readAll(d.t.Context(), res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		d.t.Fatalf("metrics of %s = %s %v", service, res.Status, err)
	}
	return string(text)
}

// signal sends a signal to the process of a service.
func (d *deployment) signal(service string, signal syscall.Signal) {
	d.t.Helper()
	if err := d.running[service].Signal(signal); err != nil {
		d.t.Fatal(err)
	}
}

// stopOne stops a service as Docker does.
func (d *deployment) stopOne(service string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 60*time.Second)
	defer cancel()
	process := d.running[service]
	if err := process.Stop(ctx); err != nil {
		d.t.Errorf("%s: %v", service, err)
	}
	if err := process.Err(); err != nil {
		d.t.Errorf("%s ended with %v", service, err)
	}
}

// stop stops all services, the gateway first.
func (d *deployment) stop() {
	d.t.Helper()
	for _, name := range slices.Backward(ownServices) {
		d.stopOne(name)
	}
}
