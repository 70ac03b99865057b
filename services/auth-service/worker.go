package main

import (
	"context"
	"os"
	"os/exec"

	"github.com/headgate/headgate/services/auth-service/internal/password"
)

// workCommand is the command by which this program becomes a hash worker.
const workCommand = "hash-worker"

// hashWorker returns workCommand of the running program. On Linux that is the program
// in memory: a deployment may have replaced its file with another release, which need
// not understand this one. The worker gets no environment, because that contains
// secrets that it does not need.
func hashWorker() *exec.Cmd {
	path := "/proc/self/exe"
	if _, err := os.Stat(path); err != nil {
		path, _ = os.Executable() // Without a path, starting the worker reports it.
	}
	cmd := exec.Command(path, workCommand) //nolint:noctx // It is this program, and it exits when its input ends.
	cmd.Env = []string{}
	return cmd
}

func work(context.Context, []string) error { return password.Work(os.Stdin, os.Stdout) }
