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

// gatewayPort returns the port for the gateway. It fails if the requested port is taken.
// Without a request, it returns the default or, if that is taken, the next free port; moved
// says so.
func gatewayPort(ctx context.Context, requested string) (port int, moved bool, err error) {
	if requested == "" {
		for port := defaultGateway; port < defaultGateway+gatewayPortRange; port++ {
			if localserver.PortFree(ctx, port) {
				return port, port != defaultGateway, nil
			}
		}
		return 0, false, fmt.Errorf("ports %d to %d are all taken: set GATEWAY_PORT to a free one", defaultGateway, defaultGateway+gatewayPortRange-1)
	}
	port, err = strconv.Atoi(requested)
	switch {
	case err != nil || port < 0 || port > 65535:
		return 0, false, fmt.Errorf("GATEWAY_PORT: want a number from 0 (any free port) to 65535, not %q", requested)
	case port == 0:
		port, err = localserver.FreePort(ctx)
		return port, false, err
	case !localserver.PortFree(ctx, port):
		return 0, false, fmt.Errorf("GATEWAY_PORT: port %d is taken or not allowed: stop the program that listens on it, or choose another port", port)
	}
	return port, false, nil
}

// listen listens on the preferred port of loopback, or on a free port if the preferred one is
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

// reservedPorts are free ports that no other program can take until they are released.
type reservedPorts struct{ listeners []net.Listener }

// port returns the address of one more free port.
func (r *reservedPorts) port(ctx context.Context) (string, error) {
	l, err := listen(ctx, 0)
	if err != nil {
		return "", fmt.Errorf("reserve a free port: %w", err)
	}
	r.listeners = append(r.listeners, l)
	return l.Addr().String(), nil
}

// release makes the ports available to the programs that they are for.
func (r *reservedPorts) release() error {
	var errs []error
	for _, l := range r.listeners {
		errs = append(errs, l.Close())
	}
	r.listeners = nil
	return errors.Join(errs...)
}
