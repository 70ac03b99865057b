package main

import (
	"context"
	"os"
	"os/exec"

	"github.com/headgate/headgate/services/auth-service/internal/password"
)

// workCommand is the command by which this program becomes a hash worker.
const workCommand = "hash-worker"

// hashWorker returns workCommand of the running program. On Linux this works even if
// its file was replaced by a deployment. The worker gets no environment, because that
// contains secrets that it does not need.
func hashWorker() *exec.Cmd {
	path, err := os.Executable()
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		path = "/proc/self/exe"
	}
	cmd := exec.Command(path, workCommand) //nolint:gosec,noctx // It is this program, and it exits when its input ends.
	cmd.Env = []string{}
	return cmd
}

func work(context.Context, []string) error { return password.Work(os.Stdin, os.Stdout) }
