package localserver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
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
		if PortFree(ctx, port) {
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
