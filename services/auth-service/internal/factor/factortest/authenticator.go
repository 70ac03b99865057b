// Package factortest is a passkey authenticator in software, for tests.
package factortest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"slices"
	"testing"

	"github.com/go-webauthn/webauthn/protocol/webauthncbor"
	"github.com/google/uuid"
)

// Flags of authenticator data (Web Authentication, 6.1).
const (
	UserPresent  = 0x01
	UserVerified = 0x04

	withKey = 0x40
)

// Authenticator is a security key in software. It has one passkey. Tests may change
// its fields to answer wrongly.
type Authenticator struct {
	T     *testing.T
	Key   *ecdsa.PrivateKey
	ID    []byte
	Owner uuid.UUID

	Host, Origin string
	Flags        byte
	Counter      uint32
}

// New returns an authenticator with a passkey of an account for a site.
func New(t *testing.T, owner, host, origin string) *Authenticator {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &Authenticator{
		T: t, Key: key, ID: []byte("credential " + rand.Text()), Owner: uuid.MustParse(owner),
		Host: host, Origin: origin, Flags: UserPresent | UserVerified, Counter: 1,
	}
}

// Encode returns b as Web Authentication writes it in JSON.
func Encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// JSON encodes v.
func (a *Authenticator) JSON(v any) []byte {
	a.T.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		a.T.Fatal(err)
	}
	return data
}

func (a *Authenticator) cbor(v any) []byte {
	a.T.Helper()
	data, err := webauthncbor.Marshal(v)
	if err != nil {
		a.T.Fatal(err)
	}
	return data
}

// clientData is about the challenge in the options of a ceremony.
func (a *Authenticator) clientData(kind string, options any) []byte {
	a.T.Helper()
	var in struct {
		PublicKey struct{ Challenge string }
	}
	if err := json.Unmarshal(a.JSON(options), &in); err != nil || in.PublicKey.Challenge == "" {
		a.T.Fatalf("options = %+v, %v", options, err)
	}
	return a.JSON(map[string]any{"type": kind, "challenge": in.PublicKey.Challenge, "origin": a.Origin, "crossOrigin": false})
}

func (a *Authenticator) data(flags byte) []byte {
	sum := sha256.Sum256([]byte(a.Host))
	return binary.BigEndian.AppendUint32(append(sum[:], flags), a.Counter)
}

func (a *Authenticator) answer(response map[string]string) json.RawMessage {
	a.T.Helper()
	return a.JSON(map[string]any{"id": Encode(a.ID), "rawId": Encode(a.ID), "type": "public-key", "response": response})
}

// Register answers navigator.credentials.create.
func (a *Authenticator) Register(options any) json.RawMessage {
	a.T.Helper()
	point, err := a.Key.PublicKey.Bytes() // 0x04, x, y
	if err != nil {
		a.T.Fatal(err)
	}
	data := append(a.data(a.Flags|withKey), make([]byte, 16)...)  // no AAGUID
	data = binary.BigEndian.AppendUint16(data, uint16(len(a.ID))) //nolint:gosec // Ids of tests are short.
	data = append(data, a.ID...)
	data = append(data, a.cbor(map[int]any{1: 2, 3: -7, -1: 1, -2: point[1:33], -3: point[33:]})...) // COSE: EC2, ES256, P-256
	return a.answer(map[string]string{
		"clientDataJSON":    Encode(a.clientData("webauthn.create", options)),
		"attestationObject": Encode(a.cbor(map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": data})),
	})
}

// Login answers navigator.credentials.get.
func (a *Authenticator) Login(options any) json.RawMessage {
	a.T.Helper()
	client, data := a.clientData("webauthn.get", options), a.data(a.Flags)
	sum := sha256.Sum256(client)
	signed := sha256.Sum256(append(slices.Clip(data), sum[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, a.Key, signed[:])
	if err != nil {
		a.T.Fatal(err)
	}
	return a.answer(map[string]string{
		"clientDataJSON": Encode(client), "authenticatorData": Encode(data), "signature": Encode(signature), "userHandle": Encode(a.Owner[:]),
	})
}
