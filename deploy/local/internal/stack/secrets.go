package stack

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// secret returns the stored secret with the name, which it generates if there is none. The
// services keep their secrets in the same folder.
func (s *stack) secret(name string) (string, error) {
	folder := filepath.Join(s.cfg.Dir, "secrets")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", fmt.Errorf("make secrets folder: %w", err)
	}
	path := filepath.Join(folder, name)
	kept, err := os.ReadFile(path) //nolint:gosec // The folder and a constant.
	if err == nil && len(bytes.TrimSpace(kept)) > 0 {
		return string(bytes.TrimSpace(kept)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read secret: %w", err)
	}
	made := rand.Text()
	if err := writeFile(path, []byte(made)); err != nil {
		return "", fmt.Errorf("store secret: %w", err)
	}
	return made, nil
}
