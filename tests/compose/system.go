package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// system is what docker-compose.yml describes, as the steps of the test see it.
type system struct {
	*engine

	began            time.Time
	gateway, mailbox string
	token            string // of a user
}

const (
	password = "correct horse battery staple"
	email    = "ada@example.com"
	admin    = "admin@headgate.local"
	// Passwords with all characters that are special somewhere.
	specialPassword = `p@ss:w/o?r#d $HOME %41 "x" \n ` + "0123456789"
)

func (s *system) say(format string, args ...any) {
	fmt.Printf("%6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// prepare copies the files of the checkout into a new folder, with the rights that umask 077
// gives, and writes .env.
func (s *system) prepare(ctx context.Context) error {
	if err := s.chooseImages(ctx); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "headgate-compose-")
	if err != nil {
		return err
	}
	const copyTo = `umask 077; git -c safe.directory='*' ls-files -z --cached --others --exclude-standard --deduplicate | tar --null --ignore-failed-read -cT - | tar -xC "$0"; chmod -R go-rwx "$0"`
	if out, err := s.command(ctx, "sh", "-c", copyTo, dir); err != nil {
		return fmt.Errorf("copy the checkout: %w\n%s", err, out)
	}
	s.dir = dir
	if _, err := s.command(ctx, "bash", "tools/env.sh"); err != nil {
		return err
	}
	gateway, err := freePort(ctx)
	if err != nil {
		return err
	}
	mailbox, err := freePort(ctx)
	if err != nil {
		return err
	}
	s.gateway, s.mailbox = "http://localhost:"+gateway, "http://127.0.0.1:"+mailbox
	return s.set(map[string]string{
		"GATEWAY_PORT": gateway, "MAILBOX_PORT": mailbox,
		"ADMIN_PASSWORD":      "'" + specialPassword + "'",
		"AUTH_DB_PASSWORD":    "'" + specialPassword + "1'",
		"REDIS_USER_PASSWORD": "'" + specialPassword + "2'",
	})
}

func freePort(ctx context.Context) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, err
}

// set replaces variables in .env.
func (s *system) set(values map[string]string) error {
	path := filepath.Join(s.dir, ".env")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		name, _, _ := strings.Cut(line, "=")
		if _, ok := values[name]; !ok {
			lines = append(lines, line)
		}
	}
	for name, value := range values {
		lines = append(lines, name+"="+value+"\n")
	}
	return os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600)
}

func (s *system) build(ctx context.Context) error {
	_, err := s.dc(ctx, "build")
	return err
}

func (s *system) up(ctx context.Context) error {
	_, err := s.dc(ctx, "up", "--detach", "--wait", "--wait-timeout", "300")
	return err
}

// use does what the README does.
func (s *system) use(ctx context.Context) error {
	health, err := s.call(ctx, http.StatusOK, "GET /health", "", nil)
	if err != nil {
		return err
	}
	if text, _ := health["version"].(string); health["status"] != "ok" || !strings.HasSuffix(text, "+"+testCommit) {
		return fmt.Errorf("health = %v", health)
	}
	if _, err := s.call(ctx, http.StatusCreated, "POST /api/v1/auth/signup", "", object{"email": email, "password": password, "name": "Ada"}); err != nil {
		return err
	}
	found, err := s.awaitLink(ctx)
	if err != nil {
		return err
	}
	u, err := url.Parse(found)
	if err != nil || !strings.HasPrefix(found, s.gateway+"/") {
		return fmt.Errorf("the link in the mail is %s, want one of %s: %w", found, s.gateway, err)
	}
	if _, err := s.call(ctx, http.StatusOK, "POST /api/v1/auth/verify-email", "", object{"token": u.Query().Get("token"), "password": password}); err != nil {
		return err
	}
	if s.token, err = s.login(ctx, email, password); err != nil {
		return err
	}
	if err := eventually(ctx, time.Minute, func() error {
		_, err := s.call(ctx, http.StatusOK, "GET /api/v1/user/me", s.token, nil)
		return err
	}); err != nil {
		return err
	}
	_, err = s.login(ctx, admin, specialPassword)
	return err
}

// inspect checks what the engine makes of the file.
func (s *system) inspect(ctx context.Context) error {
	var errs []error
	names, err := s.dc(ctx, "config", "--services")
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(names) {
		limits, err := s.docker(ctx, name, "inspect", "--format", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.LogConfig.Config}}")
		if err != nil {
			return err
		}
		if strings.HasPrefix(limits, "0 ") || strings.Contains(limits, "nil") || !strings.Contains(limits, "max-size:20m") {
			errs = append(errs, fmt.Errorf("%s has the limits %s", name, limits))
		}
		if name == "postgres-setup" {
			continue
		}
		used, err := s.docker(ctx, name, "stats", "--no-stream", "--format", "{{.MemUsage}}, {{.PIDs}} processes and threads")
		if err != nil {
			return err
		}
		s.say("  %-14s %s", name, used)
	}
	ports, err := s.docker(ctx, "mailpit", "port")
	if err != nil || !strings.Contains(ports, "127.0.0.1:") || strings.Contains(ports, "0.0.0.0:") {
		errs = append(errs, fmt.Errorf("the mailbox is published at %q: %w", ports, err))
	}
	return errors.Join(errs...)
}

// replace starts another container of the only instance of a service. No request may fail.
func (s *system) replace(ctx context.Context) error {
	l, err := s.during(ctx, func() error {
		_, err := s.dc(ctx, "up", "--detach", "--no-deps", "--force-recreate", "--wait", "user-service")
		return err
	})
	s.say("  %d requests, %d failed, the slowest took %s", l.requests.Load(), l.failed.Load(), l.slowest.Round(time.Millisecond))
	return errors.Join(append(l.errs, err)...)
}

// crash kills the only instance of a service. Requests that it has read may fail, at most one of
// each worker.
func (s *system) crash(ctx context.Context) error {
	l, err := s.during(ctx, func() error {
		if _, err := s.dc(ctx, "kill", "user-service"); err != nil {
			return err
		}
		_, err := s.dc(ctx, "up", "--detach", "--no-deps", "--wait", "user-service")
		return err
	})
	s.say("  %d requests, %d failed, the slowest took %s", l.requests.Load(), l.failed.Load(), l.slowest.Round(time.Millisecond))
	if l.failed.Load() > 4 {
		return errors.Join(append(l.errs, err)...)
	}
	return err
}

// changePassword does what docs/runbooks/passwords.md says.
func (s *system) changePassword(ctx context.Context) error {
	before, err := s.dc(ctx, "ps", "--quiet", "postgres")
	if err != nil {
		return err
	}
	if err := s.set(map[string]string{"AUTH_DB_PASSWORD": "'another " + specialPassword + "'"}); err != nil {
		return err
	}
	if err := s.up(ctx); err != nil {
		return err
	}
	if after, err := s.dc(ctx, "ps", "--quiet", "postgres"); err != nil || after != before {
		return fmt.Errorf("the database server was replaced for a service's password: %w", err)
	}
	_, err = s.login(ctx, email, password)
	return err
}

// initializeAlone leaves what a first initialization leaves that fails after the server's own:
// a server without the services' databases, which is not healthy. The next step repairs it.
func (s *system) initializeAlone(ctx context.Context) error {
	if _, err := s.dc(ctx, "up", "--detach", "--no-deps", "postgres"); err != nil {
		return err
	}
	return s.awaitMissing(ctx, "starting", "headgate_auth headgate_user headgate_email headgate_audit")
}

// awaitMissing waits until the health check of Postgres says that databases are missing.
func (s *system) awaitMissing(ctx context.Context, status, databases string) error {
	return eventually(ctx, 2*time.Minute, func() error {
		health, err := s.docker(ctx, "postgres", "inspect", "--format", "{{json .State.Health}}")
		if err == nil && (!strings.Contains(health, `"`+status+`"`) || !strings.Contains(health, "missing databases: "+databases+";")) {
			err = fmt.Errorf("health of postgres = %s", health)
		}
		return err
	})
}

// rebuild builds a service again after a change of one line, with Go's caches of the first build.
func (s *system) rebuild(ctx context.Context) error {
	path := filepath.Join(s.dir, "services/user-service/main.go")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	// A line that no earlier run has built.
	if err := os.WriteFile(path, fmt.Appendf(text, "\nvar _ = %d\n", time.Now().UnixNano()), 0o600); err != nil {
		return err
	}
	_, err = s.dc(ctx, "build", "user-service")
	return err
}

// loseDatabase checks that a server without a database of a service is unhealthy and says why,
// and that the next start creates it.
func (s *system) loseDatabase(ctx context.Context) error {
	if _, err := s.dc(ctx, "stop", "audit-service"); err != nil {
		return err
	}
	if _, err := s.dc(ctx, "exec", "-T", "postgres", "psql", "-U", "postgres", "-c", "DROP DATABASE headgate_audit WITH (FORCE)"); err != nil {
		return err
	}
	if err := s.awaitMissing(ctx, "unhealthy", "headgate_audit"); err != nil {
		return err
	}
	if err := s.up(ctx); err != nil {
		return err
	}
	token, err := s.login(ctx, admin, specialPassword)
	if err != nil {
		return err
	}
	_, err = s.call(ctx, http.StatusOK, "GET /api/v1/audit/events", token, nil)
	return err
}

// restart checks that data survive, and that every container ends in an orderly way.
func (s *system) restart(ctx context.Context) error {
	if _, err := s.dc(ctx, "stop"); err != nil {
		return err
	}
	states, err := s.dc(ctx, "ps", "--all", "--format", "{{.Service}} {{.ExitCode}}")
	if err != nil {
		return err
	}
	for line := range strings.Lines(states) {
		if !strings.HasSuffix(strings.TrimSpace(line), " 0") {
			return fmt.Errorf("exit code: %s", line)
		}
	}
	if _, err := s.dc(ctx, "down"); err != nil {
		return err
	}
	if err := s.up(ctx); err != nil {
		return err
	}
	_, err = s.login(ctx, email, password)
	return err
}

// explain prints what helps to find out why a step failed.
func (s *system) explain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, args := range [][]string{{"ps", "--all"}, {"logs", "--tail", "20"}} {
		out, _ := s.dc(ctx, args...)
		fmt.Println(out)
	}
}

// remove removes the containers, their data and the copy.
func (s *system) remove(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if _, err := s.dc(ctx, "down", "--volumes", "--remove-orphans", "--rmi", "local"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	_ = exec.CommandContext(ctx, "rm", "-rf", s.dir).Run()
}
