package service_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/service"
)

type config struct {
	service.Common
	Part

	Key service.Secret `envconfig:"TESTCFG_KEY" ignored:"true" generate:"true" desc:"A key."`
}

// Part is exported, as the parts in pkg are.
type Part struct {
	Must  string        `envconfig:"TESTCFG_MUST" required:"true" desc:"Something."`
	Other string        `envconfig:"TESTCFG_OTHER" required:"true" desc:"Something else."`
	Span  time.Duration `envconfig:"TESTCFG_SPAN" default:"1s" desc:"How long."`
}

// prepare sets up an environment and an empty working directory.
func prepare(t *testing.T, environment map[string]string) {
	t.Helper()
	// The process's environment is what Load reads: no t.Parallel here.
	for _, name := range []string{"ENV", "TESTCFG_KEY", "TESTCFG_KEY_FILE", "TESTCFG_MUST", "TESTCFG_OTHER", "TESTCFG_SPAN", "LOCAL_DIR", "LOG_LEVEL"} {
		t.Setenv(name, "")
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("TESTCFG_OTHER", "x")
	for name, value := range environment {
		t.Setenv(name, value)
	}
	t.Chdir(t.TempDir())
}

func load(t *testing.T, environment map[string]string) (config, error) {
	t.Helper()
	prepare(t, environment)
	var c config
	err := service.Load(&c)
	return c, err
}

func TestLoadNamesWhatIsWrong(t *testing.T) {
	_, err := load(t, map[string]string{"TESTCFG_OTHER": ""})
	for _, name := range []string{"TESTCFG_MUST", "TESTCFG_OTHER"} {
		if err == nil || !strings.Contains(err.Error(), name+": missing") {
			t.Errorf("Load = %v, want %s named", err, name)
		}
	}
	if _, err = load(t, map[string]string{"TESTCFG_MUST": "x", "TESTCFG_SPAN": "long"}); err == nil || !strings.HasPrefix(err.Error(), "TESTCFG_SPAN: ") {
		t.Errorf("Load = %v, want TESTCFG_SPAN named", err)
	}
	_, err = load(t, map[string]string{"TESTCFG_MUST": "x", "ENV": "staging", "LOG_LEVEL": "loud"})
	for _, name := range []string{"ENV", "LOG_LEVEL"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("Load = %v, want %s named", err, name)
		}
	}
}

func TestSecretsFromFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("from the file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := load(t, map[string]string{"TESTCFG_MUST": "x", "TESTCFG_KEY_FILE": file}); err != nil || c.Key.Reveal() != "from the file" {
		t.Errorf("Load = %q, %v", c.Key.Reveal(), err)
	}
	if c, err := load(t, map[string]string{"TESTCFG_MUST": "x", "TESTCFG_KEY_FILE": file, "TESTCFG_KEY": "direct"}); err != nil || c.Key.Reveal() != "direct" {
		t.Errorf("Load = %q, %v", c.Key.Reveal(), err)
	}
	if _, err := load(t, map[string]string{"TESTCFG_MUST": "x", "TESTCFG_KEY_FILE": "/nowhere"}); err == nil || !strings.Contains(err.Error(), "TESTCFG_KEY") {
		t.Errorf("Load = %v, want TESTCFG_KEY named", err)
	}
}

// TestSecretsStayOutOfTheEnvironment: child processes and whoever can read
// /proc/PID/environ find no secret that came from a file.
func TestSecretsStayOutOfTheEnvironment(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	if err := os.WriteFile(file, []byte("from-a-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		environment map[string]string
		dotEnv      string
	}{
		"file":      {map[string]string{"TESTCFG_KEY_FILE": file}, ""},
		"generated": {map[string]string{"ENV": "development", "LOCAL_DIR": dir}, ""},
		".env":      {map[string]string{"ENV": "development"}, "TESTCFG_KEY=from-dot-env\nTESTCFG_SPAN=7s\n"},
	} {
		t.Run(name, func(t *testing.T) {
			prepare(t, tc.environment)
			t.Setenv("TESTCFG_MUST", "x")
			if err := os.WriteFile(".env", []byte(tc.dotEnv), 0o600); err != nil {
				t.Fatal(err)
			}
			before := os.Environ()
			var c config
			if err := service.Load(&c); err != nil || c.Key == "" {
				t.Fatalf("Load = %q, %v", c.Key.Reveal(), err)
			}
			if tc.dotEnv != "" && (c.Key.Reveal() != "from-dot-env" || c.Span != 7*time.Second) {
				t.Errorf("Load = %q, %s, want what .env says", c.Key.Reveal(), c.Span)
			}
			if after := os.Environ(); !slices.Equal(after, before) {
				t.Errorf("Load changed the environment from %q to %q", before, after)
			}
			child, err := exec.CommandContext(t.Context(), "env").Output()
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(child), c.Key.Reveal()) {
				t.Error("a child process has the secret in its environment")
			}
		})
	}
}

// TestRequiredSecretFromAFile: NAME_FILE is enough for a required secret, and an
// empty file is not.
func TestRequiredSecretFromAFile(t *testing.T) {
	for content, want := range map[string]string{"geheim": "", "\n": "TESTCFG_KEY: missing"} {
		file := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		prepare(t, map[string]string{"TESTCFG_KEY_FILE": file})
		var c struct {
			service.Common

			Key service.Secret `envconfig:"TESTCFG_KEY" ignored:"true" required:"true" desc:"A key."`
		}
		err := service.Load(&c)
		if want == "" && (err != nil || c.Key.Reveal() != content) || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("Load with %q = %q, %v, want %q", content, c.Key.Reveal(), err, want)
		}
	}
}

// Group is a part that only embeds others.
type Group struct {
	Checked
}

// Checked is a part that always finds a fault.
type Checked struct{}

func (Checked) Validate() error { return errors.New("TESTCFG_CHECKED: wrong") }

// TestPartsOfPartsAreValidated: each part once, however deep it is embedded.
func TestPartsOfPartsAreValidated(t *testing.T) {
	prepare(t, nil)
	var c struct{ Group }
	if err := service.Load(&c); err == nil || err.Error() != "TESTCFG_CHECKED: wrong" {
		t.Errorf("Load = %v, want the fault once", err)
	}
}

func TestLoadReadsEveryKind(t *testing.T) {
	prepare(t, map[string]string{
		"TESTCFG_TEXT": "", "TESTCFG_YES": "true", "TESTCFG_SMALL": "-7", "TESTCFG_ADDR": "192.0.2.1", "TESTCFG_SPAN": "90s",
	})
	type kinds struct {
		Text    string        `envconfig:"TESTCFG_TEXT" default:"x"`
		Unset   string        `envconfig:"TESTCFG_UNSET" default:"standard"`
		Yes     bool          `envconfig:"TESTCFG_YES"`
		Number  int           `envconfig:"TESTCFG_NUMBER" default:"12"`
		Small   int32         `envconfig:"TESTCFG_SMALL"`
		Address netip.Addr    `envconfig:"TESTCFG_ADDR"`
		Span    time.Duration `envconfig:"TESTCFG_SPAN"`
		Zero    time.Duration `envconfig:"TESTCFG_ZERO"`
	}
	var got kinds
	want := kinds{
		Text: "", Unset: "standard", Yes: true, Number: 12, Small: -7, Address: netip.MustParseAddr("192.0.2.1"), Span: 90 * time.Second,
	}
	if err := service.Load(&got); err != nil || got != want {
		t.Errorf("Load = %+v, %v, want %+v", got, err, want)
	}
	for name, malformed := range map[string]string{"TESTCFG_YES": "perhaps", "TESTCFG_SMALL": "3000000000", "TESTCFG_SPAN": ""} {
		before := os.Getenv(name)
		t.Setenv(name, malformed)
		if err := service.Load(&got); err == nil || !strings.HasPrefix(err.Error(), name+": ") {
			t.Errorf("Load = %v, want %s named", err, name)
		}
		t.Setenv(name, before)
	}
}

// TestSecretWithoutItsTag: envconfig must not read a Secret, for it would take
// nothing but a variable.
func TestSecretWithoutItsTag(t *testing.T) {
	prepare(t, map[string]string{"TESTCFG_KEY": "x"})
	var c struct {
		Key service.Secret `envconfig:"TESTCFG_KEY" desc:"A key."`
	}
	if err := service.Load(&c); err == nil || !strings.HasPrefix(err.Error(), "TESTCFG_KEY: ") {
		t.Errorf("Load = %v, want TESTCFG_KEY refused", err)
	}
}

func TestDevelopmentGeneratesSecretsOnceAndProductionNever(t *testing.T) {
	dir := t.TempDir()
	development := map[string]string{"TESTCFG_MUST": "x", "ENV": "development", "LOCAL_DIR": dir}
	first, err := load(t, development)
	if err != nil || service.Strong("TESTCFG_KEY", first.Key) != nil {
		t.Fatalf("Load = %q, %v", first.Key.Reveal(), err)
	}
	if second, err := load(t, development); err != nil || second.Key != first.Key {
		t.Errorf("another service got another secret: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "secrets", "TESTCFG_KEY")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("secret file: %v, %v", info, err)
	}
	if c, err := load(t, map[string]string{"TESTCFG_MUST": "x", "LOCAL_DIR": dir}); err != nil || c.Key != "" {
		t.Errorf("production found a generated secret: %v", err)
	}
}

func TestStrong(t *testing.T) {
	t.Parallel()
	for secret, strong := range map[string]bool{
		"": false, "short": false, "changeme-changeme-changeme-changeme": false, strings.Repeat("ab", 20): false,
		"this-is-my-secret-key-for-production-1234": false, "pZk3Vx9qLm2Tn8Rw5Yb7Hc4Jd6Fg1Sa0": true,
	} {
		err := service.Strong("NAME", service.Secret(secret))
		if (err == nil) != strong || err != nil && !strings.HasPrefix(err.Error(), "NAME: ") {
			t.Errorf("Strong(%q) = %v", secret, err)
		}
	}
}

func TestSecretNeverShows(t *testing.T) {
	t.Parallel()
	cfg := struct{ Key service.Secret }{"geheim"}
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "cfg", cfg, "key", cfg.Key)
	encoded, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(cfg), fmt.Sprintf("%+v %#v %s %q", cfg, cfg, cfg.Key, cfg.Key), string(encoded), logged.String()} {
		if strings.Contains(text, "geheim") {
			t.Errorf("the secret shows in %s", text)
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	if err := service.Table(&b, config{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| `ENV` | `production` |", "| `TESTCFG_MUST` | required | Something. |", "`TESTCFG_KEY_FILE`"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("table lacks %q:\n%s", want, b.String())
		}
	}
}

func TestSEC113PlainHTTPInProductionIsForThisMachine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct{ production, development string }{
		"https://id.example.com":      {"", ""},
		"https://id.example.com:8443": {"", ""},
		"http://id.example.com":       {"APP_URL: want https", ""},
		"http://192.0.2.1:8080":       {"APP_URL: want https", ""},
		"http://localhost.evil.com":   {"APP_URL: want https", ""},
		"http://127.0.0.1.nip.io":     {"APP_URL: want https", ""},
		"http://localhost:8080":       {"", ""},
		"http://127.0.0.1:8080":       {"", ""},
		"http://[::1]:8080":           {"", ""},
		"ftp://localhost":             {"APP_URL: want http(s)://host", "APP_URL: want http(s)://host"},
		"http://:8080":                {"APP_URL: want http(s)://host", "APP_URL: want http(s)://host"},
		"localhost":                   {"APP_URL: want http(s)://host", "APP_URL: want http(s)://host"},
		"":                            {"APP_URL: want http(s)://host", "APP_URL: want http(s)://host"},
	} {
		for env, fault := range map[string]string{"production": want.production, "development": want.development} {
			err := service.Common{Env: env}.CheckURL("APP_URL", text)
			if (err == nil) != (fault == "") || err != nil && !strings.HasPrefix(err.Error(), fault) {
				t.Errorf("CheckURL(%q) in %s = %v, want %q", text, env, err, fault)
			}
		}
	}
}
