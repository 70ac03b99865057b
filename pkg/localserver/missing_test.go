package localserver

import (
	"errors"
	"testing"
)

// Not parallel with others: it hides the programs from this process.
func TestMissingProgramIsNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	postgres, redis := postgresFolders, redisFolders
	t.Cleanup(func() { postgresFolders, redisFolders = postgres, redis })
	postgresFolders, redisFolders = nil, nil

	if _, err := StartPostgres(t.Context(), Options{Dir: t.TempDir()}); !errors.Is(err, ErrNotInstalled) || err.Error() != "postgres: not installed" {
		t.Errorf("StartPostgres() = %v, want postgres: not installed", err)
	}
	if _, err := StartRedis(t.Context(), Options{Dir: t.TempDir()}); !errors.Is(err, ErrNotInstalled) || err.Error() != "redis: not installed" {
		t.Errorf("StartRedis() = %v, want redis: not installed", err)
	}
	if missing := Missing("", Postgres, Redis); len(missing) != 2 {
		t.Errorf("Missing() = %v, want both", missing)
	}
	if err := Install(t.Context(), t.Output(), Postgres, Redis); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("Install() = %v, want that it cannot", err)
	}
}
