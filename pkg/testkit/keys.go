package testkit

import (
	"testing"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
)

// Keys parses one secret or a list of id:secret.
func Keys(t testing.TB, text string) service.Keys {
	t.Helper()
	keys, err := service.ParseKeys("keys", service.Secret(text))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// Sealer returns the sealer of one secret or a list of id:secret.
func Sealer(t testing.TB, text string) *event.Sealer {
	t.Helper()
	sealer, err := event.NewSealer(Keys(t, text).Reveal())
	if err != nil {
		t.Fatal(err)
	}
	return sealer
}
