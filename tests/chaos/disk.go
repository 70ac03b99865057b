package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
)

// smallDisks are the databases whose disk can be filled.
var smallDisks = []string{"email", "audit"}

const diskSize = "256m"

// canMount says whether this process can give a database a file system of its own.
func canMount() bool { return runtime.GOOS == "linux" && os.Geteuid() == 0 }

// limitDisk puts the data of the server on a small file system in memory. The user that runs
// Postgres can reach it.
func (s *server) limitDisk() error {
	if err := os.MkdirAll(s.opts.Dir, 0o755); err != nil {
		return fmt.Errorf("make folder of %s: %w", s.name, err)
	}
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", "mode=0755,size="+diskSize, "tmpfs", s.opts.Dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mount the disk of %s: %w: %s", s.name, err, out)
	}
	s.small = true
	return nil
}

// freeDisk removes the file system of limitDisk with all its data.
func (s *server) freeDisk() error {
	if !s.small {
		return nil
	}
	s.small = false
	out, err := exec.Command("umount", "-l", s.opts.Dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("unmount the disk of %s: %w: %s", s.name, err, out)
	}
	return nil
}

// fillDisk leaves no space on the disk of the server.
func (s *server) fillDisk() error {
	file, err := os.OpenFile(s.filler(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("fill the disk of %s: %w", s.name, err)
	}
	block := make([]byte, 1<<20)
	for {
		if _, err = file.Write(block); err == nil {
			continue
		}
		if len(block) == 1 {
			break
		}
		block = block[:len(block)/2]
	}
	if errors.Is(err, syscall.ENOSPC) {
		err = nil
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("fill the disk of %s: %w", s.name, err)
	}
	return nil
}

// emptyDisk removes what fillDisk has written. It starts the server again if it has ended.
func (s *server) emptyDisk(ctx context.Context) error {
	if err := os.Remove(s.filler()); err != nil {
		return fmt.Errorf("empty the disk of %s: %w", s.name, err)
	}
	select {
	case <-s.current.Done():
		return s.start(ctx)
	default:
		return nil
	}
}

func (s *server) filler() string { return filepath.Join(s.opts.Dir, "filler") }
