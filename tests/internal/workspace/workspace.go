// Package workspace finds the source of the services, which tests and benchmarks build and
// run.
package workspace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrPartial says that this tree does not have all services.
var ErrPartial = errors.New("no go.work beside the services above this module")

// Root returns the folder with go.work and the services: the working folder, or the one
// above the module of the working folder. It searches no higher, so a copied module does
// not find another tree. It fails with ErrPartial if there is none.
func Root() (string, error) {
	folder, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the workspace: %w", err)
	}
	for module := false; ; {
		if exists(folder, "go.work") && exists(folder, "services") {
			return folder, nil
		}
		parent := filepath.Dir(folder)
		if module || parent == folder {
			return "", ErrPartial
		}
		module = exists(folder, "go.mod")
		folder = parent
	}
}

// NotCached keeps go test from reusing a cached result of the calling test. The cache does
// not know the sources that a test builds and runs. It does know the variables that a test
// (but not TestMain) reads, and this one is different in each run of make test.
func NotCached() { _ = os.Getenv("TEST_DATABASE_URL") }

func exists(folder, name string) bool {
	_, err := os.Stat(filepath.Join(folder, name))
	return err == nil
}
