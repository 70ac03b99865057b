package tests

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// TestOpenAPITypeScript generates a TypeScript client from openapi.json, compiles it in
// strict mode together with a program that signs up, and runs the program.
func TestOpenAPITypeScript(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("TypeScript client not tested: %v", err)
		}
	}
	gateway, dir, email := facts(t).GatewayURL, t.TempDir(), newEmail()
	modules := nodeModules(t)
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	copyTo(t, dir, "typescript/package.json", "typescript/tsconfig.json", "typescript/signup.ts")
	runIn(t, dir, filepath.Join(modules, ".bin/openapi-typescript"), gateway+"/openapi.json", "--output", "schema.d.ts")
	runIn(t, dir, filepath.Join(modules, ".bin/tsc"))

	var got struct {
		ID, Profile, Timezone, Outcome, Session string
		Renewed                                 bool
		Current, Refused                        []string
	}
	if out := runIn(t, dir, "node", "signup.js", gateway, email); json.Unmarshal(out, &got) != nil {
		t.Fatalf("the program printed %s", out)
	}
	if got.ID == "" || got.Profile != got.ID || got.Timezone != "Europe/Zurich" || got.Outcome != "rotated" || !got.Renewed ||
		!slices.Equal(got.Current, []string{got.Session}) || !slices.Equal(got.Refused, []string{"password required"}) {
		t.Errorf("the program printed %+v", got)
	}
	c := newClient(t)
	if me := c.login(email, goodPassword); me.ID != got.ID {
		t.Errorf("signed up as %s, signed in as %s", got.ID, me.ID)
	}
}

// nodeModules returns the folder with the packages of package-lock.json, which it installs
// once on a machine.
func nodeModules(t *testing.T) string {
	t.Helper()
	lock, err := os.ReadFile("typescript/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(lock)
	installed := filepath.Join(cache, "headgate", "typescript-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(installed); err == nil {
		return filepath.Join(installed, "node_modules")
	}
	if err := os.MkdirAll(filepath.Dir(installed), 0o755); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.MkdirTemp(filepath.Dir(installed), "installing-") //nolint:usetesting // It becomes the cache.
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(fresh)
	copyTo(t, fresh, "typescript/package.json", "typescript/package-lock.json")
	runIn(t, fresh, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	if err := os.Rename(fresh, installed); err != nil {
		if _, there := os.Stat(installed); there != nil { // Another test run may have installed it first.
			t.Fatal(err)
		}
	}
	return filepath.Join(installed, "node_modules")
}

func copyTo(t *testing.T, dir string, files ...string) {
	t.Helper()
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// runIn runs a program in a folder and returns its output. The program must succeed.
func runIn(t *testing.T, dir, program string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", filepath.Base(program), err, out, stderr.Bytes())
	}
	return out
}
