package main

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/headgate/headgate/tests/internal/workspace"
)

// TestTheOverlayFitsThisVersionOfGo: the function that the overlay changes is as expected,
// and each service gets the file that maps its clock.
func TestTheOverlayFitsThisVersionOfGo(t *testing.T) {
	t.Parallel()
	root, err := workspace.Root()
	if err != nil {
		root = t.TempDir() // The files of the services need not exist.
	}
	file, err := writeOverlay(t.TempDir(), root)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var overlay struct{ Replace map[string]string }
	if err := json.Unmarshal(text, &overlay); err != nil {
		t.Fatal(err)
	}
	if want := 2 + len(instances); len(overlay.Replace) != want {
		t.Errorf("the overlay has %d files, want %d", len(overlay.Replace), want)
	}
}
