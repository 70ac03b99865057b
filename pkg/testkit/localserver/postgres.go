package localserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const postgresPatience = 60 * time.Second

// StartPostgres starts a Postgres server whose data is in o.Dir and makes the
// data first if there is none. Postgres refuses to run as root: then it runs as
// the user postgres, or nobody, and if that user cannot reach o.Dir the data is
// kept in /var/lib/headgate-local instead. URL is the superuser's.
func StartPostgres(ctx context.Context, o Options) (*Server, error) {
	bin, err := postgresBin(o.PgBin)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, postgresPatience)
	defer cancel()
	as, err := postgresUser()
	if err != nil {
		return nil, err
	}
	dir, err := as.folder(o.Dir)
	if err != nil {
		return nil, err
	}
	output := &tail{next: o.Log}
	data := filepath.Join(dir, "data")
	password, err := initialize(ctx, bin, dir, as, output)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, output)
	}
	if err := endLeftover(ctx, data); err != nil {
		return nil, err
	}
	if o.Port == 0 {
		if o.Port, err = FreePort(ctx); err != nil {
			return nil, err
		}
	}
	args := []string{
		"-D", data, "-p", strconv.Itoa(o.Port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
		"-c", "max_connections=400",
	}
	if !o.Durable {
		args = append(args, "-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")
	}
	cmd := exec.Command(filepath.Join(bin, "postgres"), args...)
	cmd.Dir, cmd.SysProcAttr = dir, as.attributes()
	cmd.Stdout, cmd.Stderr = output, output
	// SIGINT is Postgres's fast shutdown; SIGTERM would wait for every client.
	s, err := launch(cmd, syscall.SIGINT)
	if err != nil {
		return nil, err
	}
	s.Port, s.URL = o.Port, fmt.Sprintf("postgres://postgres:%s@127.0.0.1:%d/postgres?sslmode=disable", password, o.Port)
	err = s.await(ctx, func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, s.URL)
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	})
	if err != nil {
		s.kill()
		return nil, fmt.Errorf("%w\n%s", err, output)
	}
	return s, nil
}

// initialize makes the data folder unless it is there, and returns the
// superuser's password.
func initialize(ctx context.Context, bin, dir string, as account, output *tail) (string, error) {
	data, secret := filepath.Join(dir, "data"), filepath.Join(dir, "password")
	password, err := os.ReadFile(secret)
	if err == nil {
		if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); err == nil {
			return string(password), nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read Postgres password: %w", err)
	}
	// Half-made data of a start that was cut off.
	if err := os.RemoveAll(data); err != nil {
		return "", fmt.Errorf("make Postgres data: %w", err)
	}
	password = []byte(rand.Text())
	if err := errors.Join(os.WriteFile(secret, password, 0o600), as.own(secret)); err != nil {
		return "", fmt.Errorf("make Postgres data: %w", err)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"),
		"-D", data, "-U", "postgres", "--pwfile", secret, "-A", "scram-sha-256", "-E", "UTF8", "--locale", "C", "--no-sync")
	cmd.Dir, cmd.SysProcAttr = dir, as.attributes()
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("make Postgres data: %w", err)
	}
	return string(password), nil
}

// endLeftover stops a server that still runs on the data, whose launcher was
// killed in a way that spared its children.
func endLeftover(ctx context.Context, data string) error {
	content, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return nil // There is no leftover.
	}
	lines := strings.Split(string(content), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || len(lines) < 2 || strings.TrimSpace(lines[1]) != data {
		return nil // Postgres itself refuses or clears what it does not understand.
	}
	process, err := os.FindProcess(pid)
	if err != nil || process.Signal(syscall.Signal(0)) != nil || !isPostgres(pid) {
		return nil // It has ended; Postgres clears the file.
	}
	if err := process.Signal(syscall.SIGINT); err != nil {
		return fmt.Errorf("stop the Postgres that was left over: %w", err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for process.Signal(syscall.Signal(0)) == nil {
		select {
		case <-ctx.Done():
			return fmt.Errorf("stop the Postgres that was left over (pid %d): %w", pid, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

func isPostgres(pid int) bool {
	out, err := exec.Command("ps", "-o", "args=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(out), "postgres")
}

// postgresBin returns the folder with Postgres's programs.
func postgresBin(extra string) (string, error) {
	folders := globbed("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin")
	if extra != "" {
		folders = append([]string{extra}, folders...)
	}
	initdb, err := find("initdb", folders...)
	if err != nil {
		return "", fmt.Errorf("postgres: %w", ErrNotInstalled)
	}
	resolved, err := filepath.EvalSymlinks(initdb)
	if err != nil {
		return "", fmt.Errorf("find Postgres: %w", err)
	}
	return filepath.Dir(resolved), nil
}

// account is the user that Postgres runs as; nil is this process's own.
type account struct{ *syscall.Credential }

func postgresUser() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
		if uidErr == nil && gidErr == nil {
			return account{&syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
		}
	}
	return account{}, errors.New("postgres refuses to run as root and there is neither a user postgres nor nobody")
}

func (a account) attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: a.Credential}
}

func (a account) own(path string) error {
	if a.Credential == nil {
		return nil
	}
	return os.Chown(path, int(a.Uid), int(a.Gid))
}

// folder makes dir for the account, or its stand-in if the account could not
// reach it. Nobody's folders are opened for it.
func (a account) folder(dir string) (string, error) {
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("make Postgres folder: %w", err)
	}
	if err := os.MkdirAll(absolute, 0o700); err != nil {
		return "", fmt.Errorf("make Postgres folder: %w", err)
	}
	if !a.reaches(filepath.Dir(absolute)) {
		absolute = fallbackDir(absolute)
		// Both levels are passed through by a user that is not root.
		if err := errors.Join(os.MkdirAll(absolute, 0o711), os.Chmod(fallbackRoot, 0o711)); err != nil {
			return "", fmt.Errorf("make Postgres folder: %w", err)
		}
	}
	if err := a.own(absolute); err != nil {
		return "", fmt.Errorf("give Postgres its folder: %w", err)
	}
	if a.Credential == nil {
		return absolute, nil
	}
	return absolute, os.Chmod(absolute, 0o700)
}

// reaches reports whether the account may pass through every folder of path.
func (a account) reaches(path string) bool {
	if a.Credential == nil {
		return true
	}
	for ; ; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err != nil {
			return false
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return false
		}
		bits := info.Mode().Perm()
		switch {
		case owner.Uid == a.Uid && bits&0o100 == 0,
			owner.Uid != a.Uid && owner.Gid == a.Gid && bits&0o010 == 0,
			owner.Uid != a.Uid && owner.Gid != a.Gid && bits&0o001 == 0:
			return false
		}
		if path == filepath.Dir(path) {
			return true
		}
	}
}
