package main

import (
	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
)

// signer returns the signer of a service's events, with the key that the services of the
// bench generate.
func (b *bench) signer(producer string) (*event.Signer, error) {
	return bus.GeneratedSigner(service.Common{LocalDir: b.dir}, producer)
}

// publicKeys is EVENT_PUBLIC_KEYS for a service that is not in development.
func (b *bench) publicKeys() (string, error) {
	return bus.GeneratedPublicKeys(service.Common{LocalDir: b.dir})
}
