package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/headgate/headgate/pkg/localserver"
)

const (
	loopback         = "127.0.0.1"
	defaultGateway   = 8080
	defaultWebPort   = 8025
	defaultSMTPPort  = 1025
	gatewayPortRange = 100
)

// gatewayPort returns the port for the gateway. One that was asked for is used
// or refused; the default gives way to the next free one, which the second
// result says.
func gatewayPort(ctx context.Context, asked string) (port int, moved bool, err error) {
	if asked == "" {
		for port := defaultGateway; port < defaultGateway+gatewayPortRange; port++ {
			if localserver.PortFree(ctx, port) {
				return port, port != defaultGateway, nil
			}
		}
		return 0, false, fmt.Errorf("ports %d to %d are all taken: set GATEWAY_PORT to a free one", defaultGateway, defaultGateway+gatewayPortRange-1)
	}
	port, err = strconv.Atoi(asked)
	switch {
	case err != nil || port < 0 || port > 65535:
		return 0, false, fmt.Errorf("GATEWAY_PORT: want a number from 0 (any free port) to 65535, not %q", asked)
	case port == 0:
		port, err = localserver.FreePort(ctx)
		return port, false, err
	case !localserver.PortFree(ctx, port):
		return 0, false, fmt.Errorf("GATEWAY_PORT: port %d is taken or not allowed: stop the program that listens on it, or choose another port", port)
	}
	return port, false, nil
}

// listen listens on the preferred port of loopback, or on a free one if that is
// taken or 0.
func listen(ctx context.Context, preferred int) (net.Listener, error) {
	if preferred != 0 && localserver.PortFree(ctx, preferred) {
		if l, err := listenOn(ctx, preferred); err == nil {
			return l, nil
		}
	}
	const tries = 5
	var err error
	for range tries {
		var port int
		if port, err = localserver.FreePort(ctx); err != nil {
			return nil, err
		}
		var l net.Listener
		if l, err = listenOn(ctx, port); err == nil {
			return l, nil
		}
	}
	return nil, err
}

func listenOn(ctx context.Context, port int) (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(loopback, strconv.Itoa(port)))
}

// held are free ports that nobody else can take until they are released.
type held struct{ listeners []net.Listener }

// port returns the address of one more free port.
func (h *held) port(ctx context.Context) (string, error) {
	l, err := listen(ctx, 0)
	if err != nil {
		return "", fmt.Errorf("hold a free port: %w", err)
	}
	h.listeners = append(h.listeners, l)
	return l.Addr().String(), nil
}

// release gives the ports to the programs that were promised them.
func (h *held) release() error {
	var faults []error
	for _, l := range h.listeners {
		faults = append(faults, l.Close())
	}
	h.listeners = nil
	return errors.Join(faults...)
}
