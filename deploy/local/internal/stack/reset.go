package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/headgate/headgate/pkg/localserver"
)

// Reset deletes the data of the stack in dir. It fails while the stack is running, and does
// not change a folder that no stack has used.
func Reset(ctx context.Context, dir string, out io.Writer) error {
	if _, err := os.Stat(filepath.Join(dir, lockName)); errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(out, "no data in %s\n", dir)
		return nil
	}
	lock, err := acquire(dir)
	if err != nil {
		return err
	}
	defer lock.Close() // Closing releases the lock.
	for _, name := range []string{localserver.Postgres, localserver.Redis} {
		if err := localserver.Clean(ctx, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("delete data of %s: %w", name, err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("delete %s: %w", dir, err)
	}
	fmt.Fprintf(out, "deleted %s\n", dir)
	return nil
}
