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
var ErrPartial = errors.New("no go.work beside the services in this folder or above")

// Root returns the nearest folder with go.work and the services, from the
// working folder upwards, or ErrPartial.
func Root() (string, error) {
	folder, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the workspace: %w", err)
	}
	for {
		_, work := os.Stat(filepath.Join(folder, "go.work"))
		_, services := os.Stat(filepath.Join(folder, "services", "gateway"))
		if work == nil && services == nil {
			return folder, nil
		}
		parent := filepath.Dir(folder)
		if parent == folder {
			return "", ErrPartial
		}
		folder = parent
	}
}
