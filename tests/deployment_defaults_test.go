package tests

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func readRoot(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A tag can be moved to another image, a digest cannot.
func TestSEC130ImagesArePinned(t *testing.T) {
	t.Parallel()
	pinned := regexp.MustCompile(`^[^\s:@]+:[^\s:@]+@sha256:[0-9a-f]{64}$`)
	found := 0
	argument := regexp.MustCompile(`(?m)^(?:ARG [A-Z]+_IMAGE=|FROM )([^$\s]\S*)`)
	for file, image := range map[string]*regexp.Regexp{
		"deploy/Dockerfile": argument, "deploy/postgres/Dockerfile": argument, "deploy/redis/Dockerfile": argument,
		"docker-compose.yml": regexp.MustCompile(`(?m)^\s*image: *(\S+)`),
	} {
		for _, match := range image.FindAllStringSubmatch(readRoot(t, file), -1) {
			found++
			if !pinned.MatchString(match[1]) {
				t.Errorf("%s: %s has no tag with a digest", file, match[1])
			}
		}
	}
	if found < 5 {
		t.Errorf("%d images found, want at least 5", found)
	}
}

// Nothing can be reached from other machines by default. `make check` keeps the tables in the
// READMEs true.
func TestSEC131ListenersAreOnLoopbackByDefault(t *testing.T) {
	t.Parallel()
	row := regexp.MustCompile("(?m)^\\| `([A-Z]+_ADDR)` \\| `([^`]*)`")
	for _, service := range ownServices {
		rows := row.FindAllStringSubmatch(readRoot(t, "services/"+service+"/README.md"), -1)
		if len(rows) != 2 {
			t.Errorf("%s: listeners %v, want two", service, rows)
		}
		for _, r := range rows {
			if !strings.HasPrefix(r[2], "127.0.0.1:") {
				t.Errorf("%s: %s is %s by default", service, r[1], r[2])
			}
		}
	}
}
