package main

import (
	"context"
	"os"
	"os/exec"

	"github.com/headgate/headgate/services/auth-service/internal/password"
)

// workCommand makes this program a worker of another process of it.
const workCommand = "hash-worker"

// hashWorker returns that command of the very program that runs, also if its file
// was replaced meanwhile, where the system keeps it. It gets no environment: that
// holds secrets, of which it needs none.
func hashWorker() *exec.Cmd {
	path, err := os.Executable()
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		path = "/proc/self/exe"
	}
	cmd := exec.Command(path, workCommand) //nolint:gosec,noctx // It is this very program, and ends with its input.
	cmd.Env = []string{}
	return cmd
}

func work(context.Context, []string) error { return password.Work(os.Stdin, os.Stdout) }
