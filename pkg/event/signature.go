package event

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Why an event is refused.
var (
	// ErrUnsigned says that an event has no signature.
	ErrUnsigned = errors.New("unsigned")
	// ErrForged says that the signature is not the producer's, for this event on this stream.
	ErrForged = errors.New("forged")
	// ErrWrongProducer says that the producer may not publish events of this name, or none
	// on this stream.
	ErrWrongProducer = errors.New("wrong producer")
)

// signatureDomain separates signatures of events from those of anything else, and this
// format from later ones.
const signatureDomain = "headgate event v1"

// signedBytes returns what a producer signs: the stream, the producer, the event's id and
// name, and the hash of the payload, which also has the sequence number and its epoch. So an
// entry cannot be moved to another stream or get another number, and a consumer that has
// stored these fields can prove them later without the payload. No field contains a line
// break in an event that Parse accepts.
func signedBytes(topic Topic, producer, id, name string, payload []byte) []byte {
	digest := sha256.Sum256(payload)
	return []byte(strings.Join([]string{signatureDomain, string(topic), producer, id, name, hex.EncodeToString(digest[:])}, "\n"))
}

// Signer signs the events of one producer. It is safe for concurrent use.
type Signer struct {
	producer, keyID string
	key             ed25519.PrivateKey
}

// NewSigner derives the key of a producer from a secret of at least 32 bytes. Different
// producers have different keys even if they share the secret.
func NewSigner(producer, secret string) (*Signer, error) {
	if len(secret) < 32 {
		return nil, errors.New("signing secret is shorter than 32 bytes")
	}
	seed, err := hkdf.Key(sha256.New, []byte(secret), nil, "headgate event signature v1 "+producer, ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("derive signing key: %w", err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	return &Signer{producer: producer, keyID: keyID(key[ed25519.SeedSize:]), key: key}, nil
}

// keyID names a public key by its hash, so that an id never stands for two keys.
func keyID(public []byte) string {
	sum := sha256.Sum256(public)
	return hex.EncodeToString(sum[:6])
}

// KeyID returns the id of the key.
func (s *Signer) KeyID() string { return s.keyID }

// Sign returns the signature of an event with the id and name, whose payload is published
// on topic.
func (s *Signer) Sign(topic Topic, id, name string, payload []byte) string {
	return base64.RawURLEncoding.EncodeToString(ed25519.Sign(s.key, signedBytes(topic, s.producer, id, name, payload)))
}

// PublicKey returns the key's entry for the lists that ParsePublicKeys reads.
func (s *Signer) PublicKey() string {
	return s.producer + ":" + s.keyID + ":" + base64.StdEncoding.EncodeToString(s.key[ed25519.SeedSize:])
}

// PublicKeys are the keys with which consumers check events. A producer has several while
// its key is rotated. The zero value has none.
type PublicKeys struct {
	keys map[producerKey]ed25519.PublicKey
}

type producerKey struct{ producer, id string }

var producerForm = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)

// ParsePublicKeys reads a list like "auth-service:0a1b2c3d4e5f:base64,user-service:…". The
// error names the entry that is malformed, repeated, or has an id that is not its key's.
func ParsePublicKeys(list string) (PublicKeys, error) {
	keys := PublicKeys{keys: map[producerKey]ed25519.PublicKey{}}
	for i, entry := range strings.Split(list, ",") {
		if err := keys.add(strings.TrimSpace(entry)); err != nil {
			return PublicKeys{}, fmt.Errorf("entry %d: %w", i+1, err)
		}
	}
	return keys, nil
}

func (k PublicKeys) add(entry string) error {
	parts := strings.Split(entry, ":")
	if len(parts) != 3 || !producerForm.MatchString(parts[0]) {
		return errors.New("want producer:key id:public key in base64")
	}
	public, err := base64.StdEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(public) != ed25519.PublicKeySize {
		return fmt.Errorf("the public key of %s is not 32 bytes in base64", parts[0])
	}
	if id := keyID(public); parts[1] != id {
		return fmt.Errorf("the id of this key of %s is %s, not %.20q", parts[0], id, parts[1])
	}
	name := producerKey{parts[0], parts[1]}
	if _, ok := k.keys[name]; ok {
		return fmt.Errorf("the key %s of %s is there twice", parts[1], parts[0])
	}
	k.keys[name] = public
	return nil
}

// With returns the keys of k and of more.
func (k PublicKeys) With(more PublicKeys) PublicKeys {
	both := PublicKeys{keys: map[producerKey]ed25519.PublicKey{}}
	maps.Copy(both.keys, k.keys)
	maps.Copy(both.keys, more.keys)
	return both
}

// Lacking returns the services that publish and have no key.
func (k PublicKeys) Lacking() []string {
	return slices.DeleteFunc(Producers(), func(producer string) bool {
		for name := range k.keys {
			if name.producer == producer {
				return true
			}
		}
		return false
	})
}

// Has reports whether the key of s is among the keys.
func (k PublicKeys) Has(s *Signer) bool {
	_, ok := k.keys[producerKey{s.producer, s.keyID}]
	return ok
}

// Signature is what an entry of a stream says of its producer. Both are empty if it is
// unsigned.
type Signature struct{ KeyID, Value string }

// Check returns nil if e, which was decoded from payload in an entry of topic, was published
// there by its producer, and the producer may publish it. Else the error wraps ErrUnsigned,
// ErrForged or ErrWrongProducer.
func (k PublicKeys) Check(topic Topic, e Event, payload []byte, s Signature) error {
	if err := CheckProducer(topic, e); err != nil {
		return err
	}
	if s == (Signature{}) {
		return ErrUnsigned
	}
	key, ok := k.keys[producerKey{e.Producer, s.KeyID}]
	if !ok {
		return fmt.Errorf("%w: no public key %.40q of %s is known", ErrForged, s.KeyID, e.Producer)
	}
	value, err := base64.RawURLEncoding.DecodeString(s.Value)
	if err != nil || !ed25519.Verify(key, signedBytes(topic, e.Producer, e.ID, e.Name, payload), value) {
		return fmt.Errorf("%w: the signature is not that of %s for this event on %s", ErrForged, e.Producer, topic)
	}
	return nil
}

// CheckProducer returns an error that wraps ErrWrongProducer if the producer that e names
// may not publish events of this name on topic.
func CheckProducer(topic Topic, e Event) error {
	if !slices.Contains(topic.Producers(), e.Producer) {
		return fmt.Errorf("%w: %s publishes nothing on %s", ErrWrongProducer, e.Producer, topic)
	}
	if !MayPublish(e.Producer, e.Name) {
		return fmt.Errorf("%w: %s publishes no %s", ErrWrongProducer, e.Producer, e.Name)
	}
	return nil
}
