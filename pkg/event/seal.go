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

// Sealed is a secret inside an event: only holders of the sealing key can open
// it, so neither the outbox, Redis nor the audit log ever holds a live link.
type Sealed string

// ErrSeal says that a sealed value was made with another key, for another
// context, or was changed.
var ErrSeal = errors.New("sealed value cannot be opened")

const sealVersion = "s1."

// Sealer seals and opens secrets in events with AES-256-GCM. It is safe for
// concurrent use.
type Sealer struct {
	aead cipher.AEAD
}

// NewSealer derives the key from secret, of which at least 32 bytes are needed.
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
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	return &Sealer{aead: aead}, nil
}

// Seal encrypts plain. Only Open with the same context, such as the event's
// name and subject, gives it back, so a value cannot be moved into another event.
func (s *Sealer) Seal(plain, context string) Sealed {
	sealed := s.aead.Seal(nil, nil, []byte(plain), []byte(context)) //nolint:gosec // This AEAD makes a random nonce itself.
	return Sealed(sealVersion + base64.RawURLEncoding.EncodeToString(sealed))
}

// Open returns what Seal was given, or ErrSeal.
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

// Mask replaces sealed values in decoded JSON, so that people can look at it.
// It changes maps and lists in place and returns v.
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

// MaskJSON is Mask for a JSON text. What holds no sealed value comes back as it
// is.
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
