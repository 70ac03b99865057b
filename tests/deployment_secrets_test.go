package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// SEC-106: each container gets the secrets that its service's Config declares and its own
// passwords, and no others, although all of them are in .env. A line of docker-compose.yml
// that keeps a secret from the other services cannot be forgotten.
func TestSEC106ContainersHaveOnlyTheirOwnSecrets(t *testing.T) {
	t.Parallel()
	folder, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	check := filepath.Join(t.TempDir(), "composecheck")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", check, "./composecheck")
	build.Dir, build.Env = filepath.Join(folder, "tools"), append(os.Environ(), "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build composecheck: %v\n%s", err, out)
	}
	run := func(compose string) (string, error) {
		out, err := exec.CommandContext(t.Context(), check, compose, filepath.Join(folder, ".env.example"), filepath.Join(folder, "services")).CombinedOutput()
		return string(out), err
	}
	compose := filepath.Join(folder, "docker-compose.yml")
	if out, err := run(compose); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(compose)
	if err != nil {
		t.Fatal(err)
	}
	for secret, foreign := range map[string]string{"PASSWORD_PEPPERS": "gateway", "EVENT_SEAL_KEY": "user-service", "SMTP_URL": "auth-service"} {
		forgotten := filepath.Join(t.TempDir(), "docker-compose.yml")
		if err := os.WriteFile(forgotten, []byte(strings.Replace(string(text), "\n  "+secret+`: ""`, "", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := run(forgotten); err == nil || !strings.Contains(out, foreign+": has the secret "+secret) {
			t.Errorf("a file that does not keep %s from %s passes: %v\n%s", secret, foreign, err, out)
		}
	}
}
