package localserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// orphanKillTimeout is the wait before an orphan is killed. orphanTimeout bounds the
// whole stop.
const (
	orphanKillTimeout = 10 * time.Second
	orphanTimeout     = 20 * time.Second
)

// stopOrphan stops the server that still runs on the data after its owner crashed,
// and removes its pid file. It never signals another process that has got the same
// pid: only a server has its data folder as its working directory.
func stopOrphan(ctx context.Context, opts Options, data, pidFile string, sig syscall.Signal) error {
	pidFile = filepath.Join(data, pidFile)
	pid, err := readPid(pidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read pid file: %w", err)
	}
	if pid > 0 && worksIn(ctx, pid, data) {
		fmt.Fprintf(opts.log(), "stopping process %d, which still runs in %s after its owner crashed\n", pid, data)
		if err := end(ctx, pid, data, sig); err != nil {
			return err
		}
	}
	if err := os.Remove(pidFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stale pid file: %w", err)
	}
	return nil
}

// end stops the process gracefully and kills it after orphanKillTimeout. The process
// is gone when end returns nil.
func end(ctx context.Context, pid int, data string, sig syscall.Signal) error {
	ctx, cancel := context.WithTimeout(ctx, orphanTimeout)
	defer cancel()
	if err := syscall.Kill(pid, sig); err != nil {
		return fmt.Errorf("stop orphaned process %d: %w", pid, err)
	}
	kill := time.After(orphanKillTimeout)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for worksIn(ctx, pid, data) {
		select {
		case <-tick.C:
		case <-kill:
			_ = syscall.Kill(pid, syscall.SIGKILL) // It may have ended meanwhile.
		case <-ctx.Done():
			return fmt.Errorf("orphaned process %d in %s does not stop: %w", pid, data, ctx.Err())
		}
	}
	return nil
}

// readPid returns the number in the first line, or 0 if there is none.
func readPid(file string) (int, error) {
	f, err := os.Open(file) //nolint:gosec // The path is made from Options.Dir.
	if err != nil {
		return 0, err
	}
	defer f.Close()
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil && line == "" {
		return 0, nil
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return 0, nil // A crash can truncate the file.
	}
	return pid, nil
}

// worksIn reports whether the process is alive and has the folder as its working
// directory. It is false for processes of other users that cannot be inspected.
func worksIn(ctx context.Context, pid int, folder string) bool {
	var cwd string
	if runtime.GOOS == "linux" {
		cwd, _ = os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "cwd")) // Empty for a dead process.
	} else {
		out, _ := exec.CommandContext(ctx, "lsof", "-a", "-p", strconv.Itoa(pid), "-d", "cwd", "-Fn").Output() //nolint:gosec // A number.
		if _, name, ok := strings.Cut(string(out), "\nn"); ok {
			cwd = strings.TrimSpace(name)
		}
	}
	target, err := filepath.EvalSymlinks(folder)
	return err == nil && cwd != "" && cwd == target
}
