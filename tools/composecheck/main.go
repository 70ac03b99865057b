// Composecheck reads a compose file as `docker compose config` does, and checks the
// deployment that it describes. It needs no container engine.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return errors.New("usage: composecheck COMPOSE-FILE ENV-EXAMPLE SERVICES-FOLDER")
	}
	variables, secrets, err := example(args[1])
	if err != nil {
		return err
	}
	owners, err := secretSettings(args[2])
	if err != nil {
		return err
	}
	var more strings.Builder
	for _, names := range owners {
		for _, name := range names {
			if _, known := secrets[name]; !known {
				secrets[name] = exampleOf(name)
				more.WriteString(name + "=" + secrets[name] + "\n")
			}
		}
	}
	variables += more.String()
	if _, err := load(ctx, args[0], ""); err == nil {
		return errors.New("the file loads without a .env: a deployment could start with empty secrets")
	}
	// The example must have every variable that the file requires.
	project, err := load(ctx, args[0], variables)
	if err != nil {
		return fmt.Errorf("load %s: %w", args[0], err)
	}
	return check(project, secrets, owners)
}

// secretSettings returns the secret settings of each service: those that the table of its
// README, which is generated from its Config, marks as secret.
func secretSettings(folder string) (map[string][]string, error) {
	readmes, err := filepath.Glob(filepath.Join(folder, "*", "README.md"))
	if err != nil {
		return nil, err
	}
	found := map[string][]string{}
	for _, readme := range readmes {
		text, err := os.ReadFile(readme) //nolint:gosec // The caller chooses the folder.
		if err != nil {
			return nil, err
		}
		service := filepath.Base(filepath.Dir(readme))
		for _, row := range secretRow.FindAllStringSubmatch(string(text), -1) {
			found[service] = append(found[service], row[1])
		}
		if len(found[service]) == 0 {
			return nil, fmt.Errorf("%s has no secret settings", readme)
		}
	}
	return found, nil
}

var secretRow = regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\|.* Secret; may be read from the file")

// load reads the file as if it were in a folder with this .env.
func load(ctx context.Context, file, variables string) (*types.Project, error) {
	folder, err := os.MkdirTemp("", "composecheck-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	if err := os.WriteFile(filepath.Join(folder, ".env"), []byte(variables), 0o600); err != nil { //nolint:gosec // The folder is new.
		return nil, err
	}
	options, err := cli.NewProjectOptions([]string{file}, cli.WithWorkingDirectory(folder), cli.WithEnvFiles(), cli.WithDotEnv)
	if err != nil {
		return nil, err
	}
	return options.LoadProject(ctx)
}

// example returns the variables of the example, with a value for each secret, and the
// secrets by name. Variables that are commented out are included.
func example(file string) (variables string, secrets map[string]string, err error) {
	text, err := os.ReadFile(file) //nolint:gosec // The caller chooses the file.
	if err != nil {
		return "", nil, err
	}
	secrets = map[string]string{}
	var b strings.Builder
	for _, setting := range settings.FindAllStringSubmatch(string(text), -1) {
		name, value := setting[1], setting[2]
		if value == "" || name == "SMTP_URL" {
			value = exampleOf(name)
			if name != "EVENT_PUBLIC_KEYS" {
				secrets[name] = value
			}
		}
		fmt.Fprintf(&b, "%s=%s\n", name, value)
	}
	return b.String(), secrets, nil
}

func exampleOf(name string) string { return "example-of-" + name + "-" }

var settings = regexp.MustCompile(`(?m)^(?:# )?([A-Z_]+)=(.*)$`)

// passwordOf matches the secrets of .env that a container may have besides those that have the
// name of a setting of its service: passwords in its URLs, the key that signs its events, and that
// of the storage of avatars, which the AWS SDK reads.
var passwordOf = map[string]*regexp.Regexp{
	"gateway":       regexp.MustCompile(`^REDIS_GATEWAY_PASSWORD$`),
	"auth-service":  regexp.MustCompile(`^((AUTH_DB|REDIS_AUTH)_PASSWORD|AUTH_EVENT_SIGNING_KEY)$`),
	"user-service":  regexp.MustCompile(`^((USER_DB|REDIS_USER)_PASSWORD|USER_EVENT_SIGNING_KEY|AWS_SECRET_ACCESS_KEY)$`),
	"email-service": regexp.MustCompile(`^((EMAIL_DB|REDIS_EMAIL)_PASSWORD|EMAIL_EVENT_SIGNING_KEY)$`),
	"audit-service": regexp.MustCompile(`^((AUDIT_DB|REDIS_AUDIT)_PASSWORD|AUDIT_EVENT_SIGNING_KEY)$`),
	"postgres":      regexp.MustCompile(`^POSTGRES_PASSWORD$`),
	setup:           regexp.MustCompile(`^(POSTGRES|[A-Z]+_DB)_PASSWORD$`),
	"redis":         regexp.MustCompile(`^REDIS_[A-Z]+_PASSWORD$`),
}

// setup is the one service that ends by itself.
const setup = "postgres-setup"

func check(project *types.Project, secrets map[string]string, owners map[string][]string) error {
	var errs []error
	for name, s := range project.Services {
		report := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("%s: %s", name, fmt.Sprintf(format, args...)))
		}
		if s.ContainerName != "" {
			report("container_name prevents scaling")
		}
		for _, port := range s.Ports {
			if loopback := name == "mailpit" && port.HostIP == "127.0.0.1"; name != "gateway" && !loopback {
				report("only the gateway must publish a port, and the mailbox one on loopback")
			}
		}
		for _, volume := range s.Volumes {
			if volume.Type != types.VolumeTypeVolume {
				report("mounts %s: its file rights could keep the container from reading it", volume.Source)
			}
		}
		if s.Logging == nil || s.Logging.Options["max-size"] == "" || s.Logging.Options["max-file"] == "" {
			report("the size of its log has no limit")
		}
		if s.MemLimit == 0 || s.PidsLimit == 0 {
			report("mem_limit or pids_limit is missing")
		}
		if name != setup && (s.HealthCheck == nil || len(s.HealthCheck.Test) == 0) {
			report("healthcheck is missing")
		}
		for on, d := range s.DependsOn {
			want := types.ServiceConditionHealthy
			switch {
			case on == setup:
				want = types.ServiceConditionCompletedSuccessfully
			case name == setup:
				want = types.ServiceConditionStarted // Postgres is healthy when setup has done its work.
			}
			if d.Condition != want {
				report("depends_on %s must have the condition %s", on, want)
			}
		}
		if s.Build != nil && s.Build.Args["SERVICE"] != nil {
			checkOwn(name, s, report)
		}
		checkSecrets(s, secrets, owners[name], report)
	}
	return errors.Join(errs...)
}

// checkOwn checks a service that is built from this repository.
func checkOwn(name string, s types.ServiceConfig, report func(string, ...any)) {
	if !s.ReadOnly || len(s.CapDrop) == 0 || len(s.SecurityOpt) == 0 {
		report("read_only, cap_drop or security_opt is missing")
	}
	if len(s.DependsOn) == 0 {
		report("depends_on is missing")
	}
	if service := s.Build.Args["SERVICE"]; *service != name {
		report("the build argument SERVICE is another service")
	}
	if rate := s.Environment["LOGIN_RATE_LIMIT"]; rate == nil {
		report("LOGIN_RATE_LIMIT of .env is not passed on")
	}
	if env := s.Environment["ENV"]; env == nil || *env != "production" {
		report("ENV must be production")
	}
}

// checkSecrets checks that a container has the secrets of its service, which own names, and
// its passwords, and no others.
func checkSecrets(s types.ServiceConfig, secrets map[string]string, own []string, report func(string, ...any)) {
	for secret, value := range secrets {
		has := false
		for _, v := range s.Environment {
			has = has || v != nil && strings.Contains(*v, value)
		}
		password := passwordOf[s.Name] != nil && passwordOf[s.Name].MatchString(secret)
		switch {
		case has && !password && !slices.Contains(own, secret):
			report("has the secret %s of another service", secret)
		case password && !has:
			report("the secret %s is missing", secret)
		}
	}
	for _, setting := range own {
		if setting == "DATABASE_DIRECT_URL" { // There is no pooler.
			continue
		}
		if value := s.Environment[setting]; value == nil || *value == "" {
			report("the secret %s is missing", setting)
		}
	}
}
