package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The folders of the clocks and of the overlay in the folder of the run.
const (
	clocksFolder  = "clocks"
	overlayFolder = "overlay"
)

// clockVariable names the file with the offset of a process's clock.
const clockVariable = "CHAOS_CLOCK"

// Services that run with a wrong clock are built with an overlay: a function time.Now that
// adds an offset, which each process maps from a file. As when a real clock jumps, only the
// wall time changes, for every package, and timers go on. The source of the services has
// nothing of it.
const (
	overlayOffset = `package time

import "sync/atomic"

var offset atomic.Pointer[int64]

func offsetSeconds() int64 {
	if p := offset.Load(); p != nil {
		return atomic.LoadInt64(p)
	}
	return 0
}

// SetOffset says where the offset is, in seconds.
func SetOffset(p *int64) { offset.Store(p) }
`
	overlayMain = `package main

import (
	"os"
	"syscall"
	"time"
	"unsafe"
)

func init() {
	file, err := os.Open(os.Getenv("` + clockVariable + `"))
	if err != nil {
		return
	}
	defer file.Close()
	shared, err := syscall.Mmap(int(file.Fd()), 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	time.SetOffset((*int64)(unsafe.Pointer(&shared[0])))
}
`
	originalNow = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
)

// writeOverlay writes the overlay for go build -overlay and returns its path.
func writeOverlay(dir, root string) (string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find the standard library: %w", err)
	}
	library := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	original, err := os.ReadFile(filepath.Join(library, "time.go"))
	if err != nil {
		return "", fmt.Errorf("read the standard library: %w", err)
	}
	if !strings.Contains(string(original), originalNow) {
		return "", errors.New("this version of Go has another time.Now: change originalNow")
	}
	folder := filepath.Join(dir, overlayFolder)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", fmt.Errorf("write overlay: %w", err)
	}
	replace := map[string]string{}
	var errs []error
	write := func(target, name, content string) {
		replace[target] = filepath.Join(folder, name)
		errs = append(errs, os.WriteFile(replace[target], []byte(content), 0o600))
	}
	write(filepath.Join(library, "time.go"), "time.go", strings.Replace(string(original), originalNow, originalNow+"\tsec += offsetSeconds()\n", 1))
	write(filepath.Join(library, "offset.go"), "offset.go", overlayOffset)
	for _, i := range instances {
		write(filepath.Join(root, "services", i.service, "chaos_clock.go"), "main.go", overlayMain)
	}
	encoded, err := json.Marshal(map[string]any{"Replace": replace})
	file := filepath.Join(folder, "overlay.json")
	if err := errors.Join(append(errs, err, os.WriteFile(file, encoded, 0o600))...); err != nil {
		return "", fmt.Errorf("write overlay: %w", err)
	}
	return file, nil
}

// clock is the clock of a process.
type clock struct{ file string }

func newClock(dir, name string) (*clock, error) {
	folder := filepath.Join(dir, clocksFolder)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("make clock: %w", err)
	}
	c := &clock{file: filepath.Join(folder, name)}
	return c, c.set(0)
}

// set makes the clock wrong by the offset at once, whether the process runs or not.
func (c *clock) set(offset time.Duration) error {
	file, err := os.OpenFile(c.file, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	var value [8]byte
	binary.NativeEndian.PutUint64(value[:], uint64(int64(offset/time.Second)))
	_, err = file.WriteAt(value[:], 0)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	return nil
}
