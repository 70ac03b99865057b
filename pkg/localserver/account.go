package localserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// systemFolder holds the files of root that another account must be able to read.
const systemFolder = "/var/lib/headgate-local"

// account is the user that runs Postgres, which refuses to run as root. nil is the
// user of this process.
type account struct {
	name     string
	uid, gid int
}

func (a *account) String() string { return a.name }

// postgresAccount returns the user that runs Postgres on the data: the owner of
// existing data, so that it works with and without sudo, otherwise postgres or nobody.
func postgresAccount(data string) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	if info, err := os.Stat(data); err == nil {
		if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid != 0 {
			return &account{name: "id " + strconv.FormatUint(uint64(owner.Uid), 10), uid: int(owner.Uid), gid: int(owner.Gid)}, nil
		}
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(found.Uid)
		if err != nil {
			return nil, fmt.Errorf("read id of user %s: %w", name, err)
		}
		gid, err := strconv.Atoi(found.Gid)
		if err != nil {
			return nil, fmt.Errorf("read group of user %s: %w", name, err)
		}
		return &account{name: name, uid: uid, gid: gid}, nil
	}
	return nil, errors.New("root cannot run Postgres, and there is no user postgres or nobody")
}

// drop makes cmd run as the account.
func (a *account) drop(cmd *exec.Cmd) {
	if a == nil {
		return
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}} //nolint:gosec // Ids are not negative.
	cmd.Env = append(os.Environ(), "HOME="+cmd.Dir)
}

// own makes the account the owner of a folder or a file.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}

// The folder that the account owns, and the database cluster inside it.
const (
	accountFolder = "data"
	clusterName   = "cluster"
)

// postgresFolder returns the folder for the data of opts, and the user that runs
// Postgres on it. It never changes the permissions of existing folders: if the user
// cannot reach opts.Dir, it returns another folder.
func postgresFolder(ctx context.Context, opts Options, probe string) (string, *account, error) {
	folder, elsewhere := filepath.Join(opts.Dir, accountFolder), fallback(opts.Dir)
	if kept, err := majorOf(filepath.Join(elsewhere, clusterName)); opts.Durable && err == nil && kept != 0 {
		owner, err := postgresAccount(elsewhere)
		return elsewhere, owner, err
	}
	owner, err := postgresAccount(folder)
	if err != nil {
		return "", nil, err
	}
	if err := makeFolder(folder, owner); err != nil {
		return "", nil, err
	}
	if reaches(ctx, owner, folder, probe) {
		return folder, owner, nil
	}
	if ctx.Err() != nil {
		return "", nil, ctx.Err()
	}
	if major, err := majorOf(filepath.Join(folder, clusterName)); err != nil || major != 0 {
		return "", nil, fmt.Errorf("user %s, which runs Postgres, cannot reach its data in %s", owner, folder)
	}
	if err := os.RemoveAll(folder); err != nil {
		return "", nil, fmt.Errorf("remove unused folder: %w", err)
	}
	if opts.Durable {
		fmt.Fprintf(opts.log(), "user %s, which runs Postgres, cannot reach %s; the data is in %s\n", owner, opts.Dir, elsewhere)
	} else if elsewhere, err = os.MkdirTemp("", "headgate-postgres-"); err != nil {
		return "", nil, fmt.Errorf("create folder: %w", err)
	}
	return elsewhere, owner, makeFolder(elsewhere, owner)
}

func makeFolder(folder string, owner *account) error {
	//nolint:gosec // Other users may read the parent folders, as in any project.
	if err := os.MkdirAll(filepath.Dir(folder), 0o755); err != nil {
		return fmt.Errorf("create folder: %w", err)
	}
	if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create folder: %w", err)
	}
	if err := owner.own(folder); err != nil {
		return fmt.Errorf("change owner of folder to user %s: %w", owner, err)
	}
	return nil
}

// reaches reports whether the account can use the folder. It runs a harmless command
// there, since only the kernel knows all rules of access.
func reaches(ctx context.Context, owner *account, folder, command string) bool {
	if owner == nil {
		return true
	}
	cmd := exec.CommandContext(ctx, command, "--version")
	cmd.Dir = folder
	owner.drop(cmd)
	return cmd.Run() == nil
}

// fallback returns the folder of the durable data if the account cannot reach dir.
func fallback(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join(systemFolder, hex.EncodeToString(sum[:8]))
}

// Clean deletes the data of servers that were started with dir, in all places where
// it can be. It first stops a server that still runs there after its owner crashed.
func Clean(ctx context.Context, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("resolve data folder: %w", err)
	}
	data, elsewhere := filepath.Join(dir, accountFolder), fallback(dir)
	err = errors.Join(
		stopOrphan(ctx, Options{}, filepath.Join(data, clusterName), postgresPidFile, syscall.SIGINT),
		stopOrphan(ctx, Options{}, filepath.Join(elsewhere, clusterName), postgresPidFile, syscall.SIGINT),
		stopOrphan(ctx, Options{}, data, redisPidFile, syscall.SIGTERM),
	)
	if err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(dir), os.RemoveAll(elsewhere)); err != nil {
		return fmt.Errorf("remove data: %w", err)
	}
	return nil
}
