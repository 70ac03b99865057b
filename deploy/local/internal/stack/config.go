package stack

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Config is the configuration of a stack.
type Config struct {
	// Dir is the folder for all data: .local in Root if empty.
	Dir string
	// Root is the root of the repository, where the services are built and run. If
	// empty: the nearest folder above the working directory that has a go.work, or
	// else, if Dir is set, the working directory.
	Root string
	// Bin is the folder with the services' binaries; if empty, they are built.
	Bin string
	// Environ is the caller's environment.
	Environ []string
	// Out receives the log.
	Out io.Writer
}

// Locate sets the missing folders and makes all of them absolute.
func (c *Config) Locate() error {
	if c.Root == "" {
		root, err := repository()
		if err != nil && c.Dir == "" {
			return err
		}
		c.Root = cmp.Or(root, ".")
	}
	if c.Dir == "" {
		c.Dir = filepath.Join(c.Root, ".local")
	}
	for _, folder := range []*string{&c.Root, &c.Dir, &c.Bin} {
		if *folder == "" {
			continue
		}
		absolute, err := filepath.Abs(*folder)
		if err != nil {
			return fmt.Errorf("find folder: %w", err)
		}
		*folder = absolute
	}
	return nil
}

func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find working directory: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("not in the Headgate repository: no go.work in this folder or above")
		}
		dir = parent
	}
}
