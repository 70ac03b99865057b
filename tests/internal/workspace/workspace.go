// Package workspace finds the source of the product, which the programs here
// build and run.
package workspace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrPartial says that this tree does not hold the whole product.
var ErrPartial = errors.New("no go.work beside the services above this module")

// Root returns the folder with go.work and the services: the working folder, or
// the one above the module that the working folder is in. It looks no higher, so
// a module that was copied out does not find another's tree. It fails with
// ErrPartial if there is none.
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

// NotCached has Go test what it tests each time that `make test` runs: the cache of
// results knows nothing of sources that are built and run by a test. It does know which
// variables a test reads, but not TestMain, and this one differs with each run.
func NotCached() { _ = os.Getenv("TEST_DATABASE_URL") }

func exists(folder, name string) bool {
	_, err := os.Stat(filepath.Join(folder, name))
	return err == nil
}
