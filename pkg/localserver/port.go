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

// The kernel gives outgoing connections higher ports than these, so a port stays free
// between its choice and its use, and during a restart.
const (
	firstPort = 20000
	lastPort  = 32000
)

// FreePort returns a port on loopback on which no process listens, and which no other
// call has returned recently.
func FreePort(ctx context.Context) (int, error) {
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort) //nolint:gosec // A port is no secret.
		if PortFree(ctx, port) && claim(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port between %d and %d", firstPort, lastPort)
}

// PortFree reports whether a server can listen on the port at any local address.
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

// claimLifetime is how long a port is reserved: longer than a program takes to listen
// on it, on a machine that is busy with other tests.
const claimLifetime = 10 * time.Minute

// claim reserves the port among the processes of the machine. It reports whether no
// other one has reserved it. Until a process listens, its port looks free to others.
func claim(port int) bool {
	dir := filepath.Join(os.TempDir(), "headgate-ports")
	if err := os.MkdirAll(dir, 0o777); err != nil { //nolint:gosec // All users of the machine share it.
		return true // Without claims a port is free often enough.
	}
	_ = os.Chmod(dir, 0o777) //nolint:gosec // The umask removed permissions. It fails on another user's folder, which has them.
	name := filepath.Join(dir, strconv.Itoa(port))
	if info, err := os.Stat(name); err == nil && time.Since(info.ModTime()) > claimLifetime {
		_ = os.Remove(name) // The process that creates it reserves the port.
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666) //nolint:gosec // It is empty.
	if err != nil {
		return !os.IsExist(err)
	}
	return f.Close() == nil
}
