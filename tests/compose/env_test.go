package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/joho/godotenv"
)

const root = "../.."

func readRoot(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// envFolder is a folder with what make env needs.
type envFolder struct {
	t   *testing.T
	dir string
}

func newEnvFolder(t *testing.T) envFolder {
	t.Helper()
	f := envFolder{t, t.TempDir()}
	for _, name := range []string{"tools/env.sh", ".env.example", "docker-compose.yml"} {
		f.write(name, readRoot(t, name))
	}
	return f
}

func (f envFolder) write(name, text string) {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f envFolder) read() string {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join(f.dir, ".env"))
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}

// makeEnv runs tools/env.sh and returns what it says.
func (f envFolder) makeEnv() string {
	f.t.Helper()
	source, err := filepath.Abs(root)
	if err != nil {
		f.t.Fatal(err)
	}
	cmd := exec.CommandContext(f.t.Context(), "bash", "tools/env.sh")
	cmd.Dir, cmd.Env = f.dir, append(os.Environ(), "HEADGATE_SOURCE="+source)
	out, err := cmd.CombinedOutput()
	if err != nil {
		f.t.Fatalf("tools/env.sh: %v\n%s", err, out)
	}
	return string(out)
}

// project reads docker-compose.yml with .env as docker compose does.
func (f envFolder) project() *types.Project {
	f.t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(f.dir, "docker-compose.yml")}, cli.WithWorkingDirectory(f.dir), cli.WithEnvFiles(), cli.WithDotEnv)
	if err != nil {
		f.t.Fatal(err)
	}
	project, err := options.LoadProject(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	return project
}

// TestEnvAfterAnUpgrade: make env adds to a .env what docker-compose.yml requires, whatever the
// file looks like, and changes no other line.
func TestEnvAfterAnUpgrade(t *testing.T) {
	t.Parallel()
	f := newEnvFolder(t)
	if out := f.makeEnv(); !strings.Contains(out, "wrote .env") {
		t.Errorf("make env says %q", out)
	}
	complete := f.read()
	if out := f.makeEnv(); f.read() != complete || !strings.Contains(out, "was not changed") {
		t.Errorf("a complete .env was changed: %s", out)
	}
	without := func(names ...string) string {
		var kept []string
		for line := range strings.Lines(complete) {
			name, _, _ := strings.Cut(line, "=")
			if !strings.Contains(" "+strings.Join(names, " ")+" ", " "+name+" ") {
				kept = append(kept, line)
			}
		}
		return strings.Join(kept, "")
	}
	for name, tc := range map[string]struct {
		before string
		want   []string // names of the variables that are added
	}{
		"missing":           {without("EVENT_SEAL_KEY", "USER_DB_PASSWORD"), []string{"EVENT_SEAL_KEY", "USER_DB_PASSWORD"}},
		"a service's key":   {without("AUDIT_EVENT_SIGNING_KEY"), []string{"AUDIT_EVENT_SIGNING_KEY", "EVENT_PUBLIC_KEYS"}},
		"the public keys":   {without("EVENT_PUBLIC_KEYS"), []string{"EVENT_PUBLIC_KEYS"}},
		"no end of line":    {strings.TrimSuffix(without("EVENT_SEAL_KEY"), "\n"), []string{"EVENT_SEAL_KEY"}},
		"empty":             {without("EVENT_SEAL_KEY") + "EVENT_SEAL_KEY=\n", []string{"EVENT_SEAL_KEY"}},
		"from Windows":      {strings.ReplaceAll(without("EVENT_SEAL_KEY"), "\n", "\r\n"), []string{"EVENT_SEAL_KEY"}},
		"commented out":     {without("EVENT_SEAL_KEY") + "# EVENT_SEAL_KEY=x\n", []string{"EVENT_SEAL_KEY"}},
		"with export":       {without("EVENT_SEAL_KEY") + "export EVENT_SEAL_KEY='" + strings.Repeat("k", 40) + "'\n", nil},
		"optional left out": {without("ADMIN_PASSWORD", "GATEWAY_PORT"), nil},
	} {
		f.write(".env", tc.before)
		out := f.makeEnv()
		after := f.read()
		if tc.want == nil && after != tc.before {
			t.Errorf("%s: changed: %s", name, out)
		}
		for _, added := range tc.want {
			if !strings.Contains(out, " "+added) {
				t.Errorf("%s: make env says %q, want %s", name, out, added)
			}
		}
		for line := range strings.Lines(tc.before) {
			variable, value, _ := strings.Cut(line, "=")
			changes := strings.TrimSpace(value) == "" || variable == "EVENT_PUBLIC_KEYS"
			if !changes && !strings.Contains(after, strings.TrimRight(line, "\r\n")) {
				t.Errorf("%s: the line of %s was changed", name, variable)
			}
		}
		if strings.Count(after, "\r\n") > 0 && strings.Count(after, "\r\n") != strings.Count(after, "\n") {
			t.Errorf("%s: line ends are mixed", name)
		}
		environment := f.project().Services["auth-service"].Environment
		if key := environment["EVENT_SEAL_KEY"]; key == nil || len(*key) != 40 {
			t.Errorf("%s: EVENT_SEAL_KEY is %v", name, key)
		}
		if keys := environment["EVENT_PUBLIC_KEYS"]; keys == nil || strings.Count(*keys, "audit-service:") == 0 {
			t.Errorf("%s: EVENT_PUBLIC_KEYS is %v", name, keys)
		}
	}
	info, err := os.Stat(filepath.Join(f.dir, ".env"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf(".env has the rights %v, %v", info.Mode(), err)
	}
}

// TestEnvValues: every character can be in a value, as .env.example says, and docker compose and
// `make run` read the same.
func TestEnvValues(t *testing.T) {
	t.Parallel()
	f := newEnvFolder(t)
	f.makeEnv()
	written := f.read()
	for text, want := range map[string]string{
		`'pa$$ "word" #1'`: `pa$$ "word" #1`,
		`'$HOME/${HOME}'`:  `$HOME/${HOME}`,
		`'back\slash\n'`:   `back\slash\n`,
		`"it's \$5"`:       `it's $5`,
		`'a@b:c/d?e#f%41'`: `a@b:c/d?e#f%41`,
	} {
		f.write(".env", written+"ADMIN_PASSWORD="+text+"\nAUTH_DB_PASSWORD="+text+"\nREDIS_AUTH_PASSWORD="+text+"\n")
		project := f.project()
		for variable, service := range map[string]string{
			"ADMIN_PASSWORD": "auth-service", "DATABASE_PASSWORD": "auth-service", "REDIS_PASSWORD": "auth-service",
			"AUTH_DB_PASSWORD": "postgres-setup", "REDIS_AUTH_PASSWORD": "redis",
		} {
			if got := project.Services[service].Environment[variable]; got == nil || *got != want {
				t.Errorf("%s in .env is %s in %s: %v", text, variable, service, got)
			}
		}
		local, err := godotenv.Read(filepath.Join(f.dir, ".env"))
		if err != nil || local["ADMIN_PASSWORD"] != want {
			t.Errorf("make run reads %s as %q, %v", text, local["ADMIN_PASSWORD"], err)
		}
	}
}

// TestGatewayPortAlone: links follow the port.
func TestGatewayPortAlone(t *testing.T) {
	t.Parallel()
	f := newEnvFolder(t)
	f.makeEnv()
	written := f.read()
	for settings, want := range map[string]string{
		"":                    "http://localhost:8080",
		"GATEWAY_PORT=8081\n": "http://localhost:8081",
		"PUBLIC_BASE_URL=https://id.example.com\nGATEWAY_PORT=127.0.0.1:8081\n": "https://id.example.com",
	} {
		f.write(".env", written+settings)
		for name, service := range f.project().Services {
			if url := service.Environment["PUBLIC_BASE_URL"]; service.Environment["HTTP_ADDR"] != nil && (url == nil || *url != want) {
				t.Errorf("%q: %s has the URL %v, want %s", settings, name, url, want)
			}
		}
	}
}

// TestEnvReachesServices: each setting in the table of a service's README that is not a secret can
// be set in .env, except for addresses in the network of the containers.
func TestEnvReachesServices(t *testing.T) {
	t.Parallel()
	f := newEnvFolder(t)
	f.makeEnv()
	settings := map[string][]string{}
	var added strings.Builder
	for _, service := range []string{"gateway", "auth-service", "user-service", "email-service", "audit-service"} {
		for _, row := range settingRow.FindAllStringSubmatch(readRoot(t, "services/"+service+"/README.md"), -1) {
			if name := row[1]; !strings.Contains(row[2], " Secret; may be read") && !fixed.MatchString(name) {
				settings[service] = append(settings[service], name)
				added.WriteString(name + "=set\n")
			}
		}
		if len(settings[service]) < 10 {
			t.Errorf("the README of %s has the settings %v", service, settings[service])
		}
	}
	f.write(".env", f.read()+added.String())
	project := f.project()
	for service, names := range settings {
		for _, name := range names {
			if got := project.Services[service].Environment[name]; got == nil || *got != "set" {
				t.Errorf("%s=set in .env does not reach %s: %v", name, service, got)
			}
		}
	}
}

var (
	settingRow = regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\|(.*)$")
	fixed      = regexp.MustCompile(`^(ENV|(HTTP|OPS)_ADDR|(JWKS|AUTH|USER|EMAIL|AUDIT)_URL)$`)
)
