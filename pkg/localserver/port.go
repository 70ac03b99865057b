package localserver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Ports that the kernel gives to outgoing connections begin above these, so a
// port stays free between being chosen and being used, and through a restart.
const (
	firstPort = 20000
	lastPort  = 32000
)

// FreePort returns a port on loopback that nobody listened on a moment ago.
func FreePort(ctx context.Context) (int, error) {
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort) //nolint:gosec // A port is no secret.
		if PortFree(ctx, port) && claim(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port between %d and %d", firstPort, lastPort)
}

// PortFree says whether a server could listen on the port of any local address.
func PortFree(ctx context.Context, port int) bool {
	for _, host := range []string{"127.0.0.1", ""} {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			return false
		}
		_ = listener.Close() // It has accepted nothing.
	}
	return true
}

// claimLife is how long a port belongs to whom it was given: longer than a
// program takes to listen on it, on a machine that is busy with other tests.
const claimLife = 10 * time.Minute

// claim reports whether no other process was given the port of late. Between
// being chosen and being listened on a port looks free to everybody.
func claim(port int) bool {
	dir := filepath.Join(os.TempDir(), "headgate-ports")
	if err := os.MkdirAll(dir, 0o777); err != nil { //nolint:gosec // Every user of the machine claims here.
		return true // Without claims a port is free often enough.
	}
	_ = os.Chmod(dir, 0o777) //nolint:gosec // The umask took it; another user's folder has it.
	name := filepath.Join(dir, strconv.Itoa(port))
	if info, err := os.Stat(name); err == nil && time.Since(info.ModTime()) > claimLife {
		_ = os.Remove(name) // Whoever creates it has it.
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666) //nolint:gosec // It is empty.
	if err != nil {
		return !os.IsExist(err)
	}
	return f.Close() == nil
}
