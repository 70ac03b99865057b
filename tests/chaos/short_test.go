package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/headgate/headgate/tests/internal/workspace"
)

// TestShortChaos is a short run on real processes with a fixed seed.
func TestShortChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("takes more than a minute")
	}
	workspace.NotCached()
	root, err := workspace.Root()
	if errors.Is(err, workspace.ErrPartial) {
		t.Skip("skipped, because this tree does not have all services")
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute) // The build cache may be empty, and the machine busy.
	defer cancel()
	if err := runAll(ctx, options{seed: 7, short: true, recovery: 2 * time.Minute, root: root, out: t.Output()}); err != nil {
		t.Error(err)
	}
}

// TestEveryShortRunHasTheImportantFaults checks this for several seeds.
func TestEveryShortRunHasTheImportantFaults(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		chosen, err := schedule(options{seed: seed, short: true})
		if err != nil {
			t.Fatal(err)
		}
		important := 0
		for _, f := range chosen {
			if f.always {
				important++
			}
		}
		if important != 3 || len(chosen) != 3+shortExtras {
			t.Errorf("seed %d: %d faults, %d of them important, want %d and 3", seed, len(chosen), important, 3+shortExtras)
		}
	}
}
