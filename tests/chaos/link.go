package main

import (
	"fmt"
	"strings"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// link is a connection between a service and Redis that can be cut silently.
type link struct {
	name, listen, upstream string
	proxy                  *toxiproxy.Proxy
}

func newLink(name, listen, upstream string) (*link, error) {
	l := &link{name: name, listen: listen, upstream: upstream}
	return l, l.open()
}

func (l *link) open() error {
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	l.proxy = toxiproxy.NewProxy(api, l.name, l.listen, l.upstream)
	if err := l.proxy.Start(); err != nil {
		return fmt.Errorf("link %s to redis: %w", l.name, err)
	}
	return nil
}

// cut drops every byte in both directions from now on, without closing connections.
func (l *link) cut() error {
	for _, direction := range []string{"upstream", "downstream"} {
		toxic := fmt.Sprintf(`{"name":"cut-%s","type":"timeout","stream":%q,"attributes":{"timeout":0}}`, direction, direction)
		if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			return fmt.Errorf("cut %s off from redis: %w", l.name, err)
		}
	}
	return nil
}

// heal closes the existing connections, which have lost bytes, and accepts new ones.
func (l *link) heal() error {
	l.proxy.Stop()
	return l.open()
}

func (l *link) close() { l.proxy.Stop() }
