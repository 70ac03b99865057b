package profile

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
)

// keysOfExport are derived from the secret in a mailed link.
type keysOfExport struct {
	lookup []byte
	aead   cipher.AEAD
}

// exportKeys derives the keys of a secret (RFC 5869). The lookup key tells nothing about the
// other one.
func exportKeys(secret string) (keysOfExport, error) {
	if secret == "" {
		return keysOfExport{}, errors.New("no secret")
	}
	lookup, err := hkdf.Key(sha256.New, []byte(secret), nil, "headgate export lookup", 32)
	if err != nil {
		return keysOfExport{}, fmt.Errorf("derive lookup key: %w", err)
	}
	key, err := hkdf.Key(sha256.New, []byte(secret), nil, "headgate export data", 32)
	if err != nil {
		return keysOfExport{}, fmt.Errorf("derive data key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return keysOfExport{}, fmt.Errorf("derive data key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return keysOfExport{lookup, aead}, err
}

func (k keysOfExport) seal(data []byte) []byte { return k.aead.Seal(nil, nil, data, nil) } //nolint:gosec // The AEAD makes a random nonce.

func (k keysOfExport) open(sealed []byte) ([]byte, error) {
	data, err := k.aead.Open(nil, nil, sealed, nil)
	if err != nil {
		return nil, fmt.Errorf("decrypt export: %w", err)
	}
	return data, nil
}
