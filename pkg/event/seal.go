package event

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
)

// Sealed is an encrypted secret inside an event. Only holders of the sealing key
// can open it, so the outbox, Redis and the audit log never hold a usable link.
type Sealed string

// ErrSeal is returned for a value that was sealed with another key or for another
// context, or that was changed.
var ErrSeal = errors.New("sealed value cannot be opened")

// A sealed value begins with the name of its key: s2.<id>. or, for the key whose id is
// empty, s1. alone.
const (
	plainSeal = "s1."
	namedSeal = "s2."
)

func sealedText(text string) bool {
	return strings.HasPrefix(text, plainSeal) || strings.HasPrefix(text, namedSeal)
}

// Sealer seals and opens secrets in events with AES-256-GCM. It is safe for
// concurrent use.
type Sealer struct {
	prefix string // of the key that seals
	keys   map[string]cipher.AEAD
}

// NewSealer returns a sealer that seals with the first key and opens what any of them has
// sealed. It gets the ids and secrets of the keys. A secret must have at least 32 bytes, and
// an id no dot.
func NewSealer(keys iter.Seq2[string, string]) (*Sealer, error) {
	s := &Sealer{keys: map[string]cipher.AEAD{}}
	for id, secret := range keys {
		prefix := plainSeal
		if id != "" {
			prefix = namedSeal + id + "."
		}
		aead, err := sealingKey(secret)
		if err != nil {
			return nil, err
		}
		if s.prefix == "" {
			s.prefix = prefix
		}
		s.keys[prefix] = aead
	}
	if s.prefix == "" {
		return nil, errors.New("no sealing key")
	}
	return s, nil
}

// sealingKey derives a key from a secret.
func sealingKey(secret string) (cipher.AEAD, error) {
	if len(secret) < 32 {
		return nil, errors.New("sealing secret is shorter than 32 bytes")
	}
	key, err := hkdf.Key(sha256.New, []byte(secret), nil, "headgate event seal v1", 32)
	if err != nil {
		return nil, fmt.Errorf("derive sealing key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("create cipher: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("create cipher: %w", err)
	}
	return aead, nil
}

// Seal encrypts plain. Open needs the same context, such as the event's name and
// subject, so that a sealed value is of no use in another event.
func (s *Sealer) Seal(plain, context string) Sealed {
	sealed := s.keys[s.prefix].Seal(nil, nil, []byte(plain), []byte(context)) //nolint:gosec // This AEAD generates a random nonce.
	return Sealed(s.prefix + base64.RawURLEncoding.EncodeToString(sealed))
}

// Open returns the plain text that Seal encrypted, or ErrSeal.
func (s *Sealer) Open(sealed Sealed, context string) (string, error) {
	end := strings.LastIndexByte(string(sealed), '.') + 1
	aead, ok := s.keys[string(sealed[:end])]
	if !ok {
		return "", ErrSeal
	}
	data, err := base64.RawURLEncoding.DecodeString(string(sealed[end:]))
	if err != nil {
		return "", ErrSeal
	}
	plain, err := aead.Open(nil, nil, data, []byte(context))
	if err != nil {
		return "", ErrSeal
	}
	return string(plain), nil
}

// First returns the beginning of what the sealer seals. It names the key.
func (s *Sealer) First() string { return s.prefix }

// Has reports whether the sealer has the key that the beginning of a sealed value names.
func (s *Sealer) Has(prefix string) bool { return s.keys[prefix] != nil }

// SealingKeyID returns the id of the key that the beginning of a sealed value names, which
// is empty for the key without one.
func SealingKeyID(prefix string) string {
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(prefix, namedSeal), plainSeal), ".")
}

// Mask replaces sealed values in decoded JSON by [sealed], so that it can be shown
// to people. It changes maps and lists in place and returns v.
func Mask(v any) any {
	switch v := v.(type) {
	case string:
		if sealedText(v) {
			return "[sealed]"
		}
	case map[string]any:
		for key, value := range v {
			v[key] = Mask(value)
		}
	case []any:
		for i, value := range v {
			v[i] = Mask(value)
		}
	}
	return v
}

// MaskJSON is Mask for encoded JSON. It returns data unchanged if it contains no
// sealed value. The error wraps ErrMalformed if data is not valid JSON.
func MaskJSON(data json.RawMessage) (json.RawMessage, error) {
	if !bytes.Contains(data, []byte(plainSeal)) && !bytes.Contains(data, []byte(namedSeal)) && !bytes.ContainsRune(data, '\\') {
		return data, nil
	}
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	masked, err := json.Marshal(Mask(v))
	if err != nil {
		return nil, fmt.Errorf("encode masked data: %w", err)
	}
	return masked, nil
}
