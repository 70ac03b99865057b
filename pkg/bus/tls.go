package bus

import (
	"context"
	"crypto/tls"
	"net"
)

func dialTLS(ctx context.Context, dialer *net.Dialer, network, addr string, cfg *tls.Config) (net.Conn, error) {
	return (&tls.Dialer{NetDialer: dialer, Config: cfg}).DialContext(ctx, network, addr)
}
