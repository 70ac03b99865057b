package localserver

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The folders in which packages install servers outside the PATH.
var (
	postgresFolders = []string{
		"/usr/lib/postgresql/*/bin",
		"/usr/pgsql-*/bin",
		"/opt/homebrew/opt/postgresql@*/bin",
		"/usr/local/opt/postgresql@*/bin",
		"/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	}
	redisFolders = []string{
		"/usr/sbin",
		"/opt/homebrew/bin",
		"/usr/local/bin",
		"/home/linuxbrew/.linuxbrew/bin",
	}
)

// postgresBinaries is a folder with a Postgres server of a major version.
type postgresBinaries struct {
	dir   string
	major int
}

func (b postgresBinaries) path(name string) string { return filepath.Join(b.dir, name) }

// findPostgres returns the binaries of the major version. If major is 0, it returns
// those in bin, otherwise the newest. The error wraps ErrNotInstalled.
func findPostgres(bin string, major int) (postgresBinaries, error) {
	var found []postgresBinaries
	for _, dir := range postgresDirs(bin) {
		if !executable(filepath.Join(dir, "initdb")) {
			continue
		}
		if version, ok := postgresMajor(filepath.Join(dir, "postgres")); ok {
			found = append(found, postgresBinaries{dir, version})
		}
	}
	if len(found) == 0 {
		return postgresBinaries{}, ErrNotInstalled
	}
	if major == 0 {
		if bin != "" && found[0].dir == bin {
			return found[0], nil
		}
		return slices.MaxFunc(found, func(a, b postgresBinaries) int { return cmp.Compare(a.major, b.major) }), nil
	}
	for _, candidate := range found {
		if candidate.major == major {
			return candidate, nil
		}
	}
	return postgresBinaries{}, fmt.Errorf("version %d, which created this data, is %w (found %d)", major, ErrNotInstalled, found[0].major)
}

func postgresDirs(bin string) []string {
	var dirs []string
	if bin != "" {
		dirs = append(dirs, bin)
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		// The link's target has initdb beside it.
		if target, err := filepath.EvalSymlinks(path); err == nil {
			path = target
		}
		dirs = append(dirs, filepath.Dir(path))
	}
	for _, pattern := range append(slices.Clone(postgresFolders), filepath.Join(npmFolder(), "*", npmBin)) {
		matches, _ := filepath.Glob(pattern) // The patterns are well formed.
		dirs = append(dirs, matches...)
	}
	return dirs
}

var versionPattern = regexp.MustCompile(`(\d+)(\.|devel|beta|rc|\s|$)`)

func postgresMajor(postgres string) (int, bool) {
	if !executable(postgres) {
		return 0, false
	}
	out, err := exec.Command(postgres, "--version").Output() //nolint:noctx // A binary found above; it answers at once.
	if err != nil {
		return 0, false
	}
	match := versionPattern.FindStringSubmatch(string(out))
	if match == nil {
		return 0, false
	}
	major, err := strconv.Atoi(match[1])
	return major, err == nil
}

// FindRedis returns the path of a Redis server, or of a Valkey server, which is
// compatible. It searches the PATH, the folder bin, and the folders of packages. The
// error is ErrNotInstalled.
func FindRedis(bin string) (string, error) {
	folders := append([]string{}, redisFolders...)
	if bin != "" {
		folders = append([]string{bin}, folders...)
	}
	for _, name := range []string{"redis-server", "valkey-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
		for _, folder := range folders {
			if path := filepath.Join(folder, name); executable(path) {
				return path, nil
			}
		}
	}
	return "", ErrNotInstalled
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// majorOf returns the major version that created the data, or 0 without data.
func majorOf(data string) (int, error) {
	content, err := os.ReadFile(filepath.Join(data, "PG_VERSION")) //nolint:gosec // The path is made from Options.Dir.
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read version of the data: %w", err)
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		return 0, fmt.Errorf("read version of the data: %w", err)
	}
	return major, nil
}
