package bus

import (
	"errors"
	"fmt"
	"strings"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
)

const (
	signingKeyVariable = "EVENT_SIGNING_KEY"
	publicKeysVariable = "EVENT_PUBLIC_KEYS"
)

// SigningKey is the part of the configuration of services that publish events.
type SigningKey struct {
	EventSigningKey service.Secret `envconfig:"EVENT_SIGNING_KEY" ignored:"true" generate:"true" desc:"Signs the events that this service publishes. At least 32 random characters, different in each service. The command event-key prints the public key for EVENT_PUBLIC_KEYS."`
}

// Validate implements service.Validator.
func (k SigningKey) Validate() error { return service.Strong(signingKeyVariable, k.EventSigningKey) }

// Signer returns the signer of the events of a service.
func (k SigningKey) Signer(producer string) (*event.Signer, error) {
	s, err := event.NewSigner(producer, k.EventSigningKey.Reveal())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", signingKeyVariable, err)
	}
	return s, nil
}

// PublicKeys is the part of the configuration of services that read events.
type PublicKeys struct {
	EventPublicKeys string `envconfig:"EVENT_PUBLIC_KEYS" desc:"The public keys of all services that publish events: comma-separated lines of their command event-key, the same list in every service. A service has several keys while its key is rotated. Required; in development the services know the keys that they have generated."`
	EventSignatures string `envconfig:"EVENT_SIGNATURES" default:"require" desc:"require, or accept-unsigned while services of the release before signatures are running: then an event without a signature is handled, and one with an invalid signature is still a dead letter."`
}

const (
	requireSignatures = "require"
	acceptUnsigned    = "accept-unsigned"
)

// Validate implements service.Validator.
func (k PublicKeys) Validate() error {
	var faults []error
	if k.EventPublicKeys != "" {
		_, err := k.parse()
		faults = append(faults, err)
	}
	if k.EventSignatures != requireSignatures && k.EventSignatures != acceptUnsigned {
		faults = append(faults, errors.New("EVENT_SIGNATURES: want require or accept-unsigned"))
	}
	return errors.Join(faults...)
}

// AcceptUnsigned reports whether services of the release before signatures may be running.
func (k PublicKeys) AcceptUnsigned() bool { return k.EventSignatures == acceptUnsigned }

func (k PublicKeys) parse() (event.PublicKeys, error) {
	keys, err := event.ParsePublicKeys(k.EventPublicKeys)
	if err != nil {
		return event.PublicKeys{}, fmt.Errorf("%s: %w", publicKeysVariable, err)
	}
	return keys, nil
}

// Keys returns the public keys. It fails if a service that publishes has none.
func (k PublicKeys) Keys(common service.Common) (keys event.PublicKeys, err error) {
	if k.EventPublicKeys != "" {
		if keys, err = k.parse(); err != nil {
			return event.PublicKeys{}, err
		}
	}
	if common.Development() {
		list, err := GeneratedPublicKeys(common)
		if err != nil {
			return event.PublicKeys{}, err
		}
		generated, err := PublicKeys{EventPublicKeys: list}.parse()
		if err != nil {
			return event.PublicKeys{}, err
		}
		keys = keys.With(generated)
	}
	if lacking := keys.Lacking(); len(lacking) > 0 {
		return event.PublicKeys{}, fmt.Errorf("%s: no key of %s; the command event-key of each service prints its own", publicKeysVariable, strings.Join(lacking, ", "))
	}
	return keys, nil
}

// GeneratedPublicKeys returns EVENT_PUBLIC_KEYS with the keys that services in development
// derive from the secret that they share.
func GeneratedPublicKeys(common service.Common) (string, error) {
	var lines []string
	for _, producer := range event.Producers() {
		signer, err := GeneratedSigner(common, producer)
		if err != nil {
			return "", err
		}
		lines = append(lines, signer.PublicKey())
	}
	return strings.Join(lines, ","), nil
}

// GeneratedSigner returns the signer of a service in development.
func GeneratedSigner(common service.Common, producer string) (*event.Signer, error) {
	secret, err := common.GeneratedSecret(signingKeyVariable)
	if err != nil {
		return nil, err
	}
	return SigningKey{EventSigningKey: service.Secret(secret)}.Signer(producer)
}
