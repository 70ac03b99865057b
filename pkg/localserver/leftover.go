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

const leftoverTimeout = 20 * time.Second

// stopLeftover ends the server that an owner which crashed has left running on
// the data, and removes its pid file. A process that merely has the pid of the
// dead server now is left alone: a server works in its data folder.
func stopLeftover(ctx context.Context, opts Options, data, pidFile string, sig syscall.Signal) error {
	pidFile = filepath.Join(data, pidFile)
	pid, err := readPid(pidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read pid of an earlier server: %w", err)
	}
	if pid > 0 && worksIn(ctx, pid, data) {
		fmt.Fprintf(opts.log(), "stopping process %d, which an earlier run left behind in %s\n", pid, data)
		if err := end(ctx, pid, data, sig); err != nil {
			return err
		}
	}
	if err := os.Remove(pidFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stale pid file: %w", err)
	}
	return nil
}

// end signals the process until it is gone: gracefully, and after half the time
// without mercy.
func end(ctx context.Context, pid int, data string, sig syscall.Signal) error {
	ctx, cancel := context.WithTimeout(ctx, leftoverTimeout)
	defer cancel()
	if err := syscall.Kill(pid, sig); err != nil {
		return fmt.Errorf("stop process %d, which an earlier run left behind: %w", pid, err)
	}
	mercy := time.After(leftoverTimeout / 2)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for worksIn(ctx, pid, data) {
		select {
		case <-tick.C:
		case <-mercy:
			_ = syscall.Kill(pid, syscall.SIGKILL) // It has ended meanwhile.
		case <-ctx.Done():
			return fmt.Errorf("process %d, which an earlier run left behind in %s, does not stop: %w", pid, data, ctx.Err())
		}
	}
	return nil
}

// readPid returns the number in the first line, 0 if there is none.
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
		return 0, nil // A crash has cut the file short, so nobody is named.
	}
	return pid, nil
}

// worksIn says whether the process lives and has the folder as its working
// directory. A process that may not be looked at is another user's.
func worksIn(ctx context.Context, pid int, folder string) bool {
	var cwd string
	if runtime.GOOS == "linux" {
		cwd, _ = os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "cwd")) // Empty for the dead.
	} else {
		out, _ := exec.CommandContext(ctx, "lsof", "-a", "-p", strconv.Itoa(pid), "-d", "cwd", "-Fn").Output() //nolint:gosec // A number.
		if _, name, ok := strings.Cut(string(out), "\nn"); ok {
			cwd = strings.TrimSpace(name)
		}
	}
	target, err := filepath.EvalSymlinks(folder)
	return err == nil && cwd != "" && cwd == target
}
