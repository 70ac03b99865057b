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
	"strings"
)

// Sealed is an encrypted secret inside an event. Only holders of the sealing key
// can open it, so the outbox, Redis and the audit log never hold a usable link.
type Sealed string

// ErrSeal is returned for a value that was sealed with another key or for another
// context, or that was changed.
var ErrSeal = errors.New("sealed value cannot be opened")

const sealVersion = "s1."

// Sealer seals and opens secrets in events with AES-256-GCM. It is safe for
// concurrent use.
type Sealer struct {
	aead cipher.AEAD
}

// NewSealer derives the key from secret, which must have at least 32 bytes.
func NewSealer(secret string) (*Sealer, error) {
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
	return &Sealer{aead: aead}, nil
}

// Seal encrypts plain. Open needs the same context, such as the event's name and
// subject, so that a sealed value is of no use in another event.
func (s *Sealer) Seal(plain, context string) Sealed {
	sealed := s.aead.Seal(nil, nil, []byte(plain), []byte(context)) //nolint:gosec // This AEAD generates a random nonce.
	return Sealed(sealVersion + base64.RawURLEncoding.EncodeToString(sealed))
}

// Open returns the plain text that Seal encrypted, or ErrSeal.
func (s *Sealer) Open(sealed Sealed, context string) (string, error) {
	text, ok := strings.CutPrefix(string(sealed), sealVersion)
	if !ok {
		return "", ErrSeal
	}
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return "", ErrSeal
	}
	plain, err := s.aead.Open(nil, nil, data, []byte(context))
	if err != nil {
		return "", ErrSeal
	}
	return string(plain), nil
}

// Mask replaces sealed values in decoded JSON by [sealed], so that it can be shown
// to people. It changes maps and lists in place and returns v.
func Mask(v any) any {
	switch v := v.(type) {
	case string:
		if strings.HasPrefix(v, sealVersion) {
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
	if !bytes.Contains(data, []byte(sealVersion)) && !bytes.ContainsRune(data, '\\') {
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
