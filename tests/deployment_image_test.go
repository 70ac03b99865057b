package tests

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// image builds the program of a service once and returns its path.
func image(t *testing.T, service string) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	kept := filepath.Join(system.dir, "image-"+service)
	if _, err := os.Stat(kept); err == nil {
		return kept
	}
	if err := os.Rename(buildImage(t, service), kept); err != nil {
		t.Fatal(err)
	}
	return kept
}

// buildImage runs the build stage of deploy/Dockerfile for a service without a container
// engine: it copies what the stage copies into an empty folder, runs its commands there,
// and returns the program that the last stage copies.
func buildImage(t *testing.T, service string) (program string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy/Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	b := &imageBuild{t: t, root: t.TempDir(), dir: "/", environment: []string{"SERVICE=" + service}, ignored: ignoredFiles(t)}
	stages := 0
	for line := range strings.Lines(string(text)) {
		instruction, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if instruction == "FROM" {
			stages++
		}
		if stages == 1 {
			b.run(instruction, os.Expand(rest, func(name string) string {
				if name == "SERVICE" {
					return service
				}
				return "$" + name
			}))
		}
		if stages == 2 && instruction == "COPY" {
			from, _, ok := strings.Cut(strings.TrimPrefix(rest, "--from=build "), " ")
			if !ok {
				t.Fatalf("deploy/Dockerfile: %s", line)
			}
			program = filepath.Join(b.root, from)
		}
	}
	if info, err := os.Stat(program); err != nil || info.Mode()&0o111 == 0 {
		t.Fatalf("deploy/Dockerfile built no program for %s: %v", service, err)
	}
	t.Logf("built %s in %s", service, time.Since(started).Round(time.Millisecond))
	return program
}

// imageBuild is the file system of a build stage, below root.
type imageBuild struct {
	t           *testing.T
	root, dir   string
	environment []string
	ignored     []string
}

// cacheMount keeps what Go caches between two builds. Here it is the cache of this machine.
var cacheMount = regexp.MustCompile(`--mount=type=cache,\S+ `)

func (b *imageBuild) run(instruction, rest string) {
	b.t.Helper()
	switch instruction {
	case "", "#", "FROM", "ARG":
	case "ENV":
		b.environment = append(b.environment, strings.Fields(rest)...)
	case "WORKDIR":
		b.dir = rest
		if err := os.MkdirAll(b.path("."), 0o755); err != nil {
			b.t.Fatal(err)
		}
	case "COPY":
		names := strings.Fields(rest)
		target := names[len(names)-1]
		for _, name := range names[:len(names)-1] {
			b.copy(name, target)
		}
	case "RUN":
		rest = cacheMount.ReplaceAllString(rest, "")
		// The one absolute path that the commands write to.
		cmd := exec.CommandContext(b.t.Context(), "sh", "-c", strings.ReplaceAll(rest, "-o /service", "-o "+filepath.Join(b.root, "service")))
		cmd.Dir, cmd.Env = b.path("."), append(os.Environ(), b.environment...)
		if out, err := cmd.CombinedOutput(); err != nil {
			b.t.Fatalf("RUN %s: %v\n%s", rest, err, out)
		}
	default:
		b.t.Fatalf("deploy/Dockerfile has the instruction %s, which this test does not know", instruction)
	}
}

func (b *imageBuild) path(name string) string { return filepath.Join(b.root, b.dir, name) }

// copy copies a file into a folder, or the files of a folder, without ignored ones.
func (b *imageBuild) copy(name, target string) {
	b.t.Helper()
	source := filepath.Join(root, name)
	err := filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		for _, pattern := range b.ignored {
			if ignored, err := filepath.Match(pattern, d.Name()); err != nil || ignored && d.IsDir() {
				return filepath.SkipDir
			} else if ignored {
				return nil
			}
		}
		relative, err := filepath.Rel(source, path)
		if err != nil || d.IsDir() {
			return err
		}
		if relative == "." {
			relative = d.Name()
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		to := filepath.Join(b.path(target), relative)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, data, 0o600)
	})
	if err != nil {
		b.t.Fatalf("COPY %s %s: %v", name, target, err)
	}
}

// ignoredFiles returns the names that .dockerignore leaves out at any depth.
func ignoredFiles(t *testing.T) (names []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "**/"); ok {
			names = append(names, name)
		}
	}
	return names
}
