package service

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
)

// Secret is text that logs, errors and JSON show as [redacted]. Only Reveal
// returns it.
type Secret string

const redacted = "[redacted]"

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String implements fmt.Stringer.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString keeps %#v from showing the secret.
func (s Secret) GoString() string { return s.String() }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON implements json.Marshaler.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// secret returns the value of a Secret: of its variable, of the file that NAME_FILE
// names, or the generated one of a development machine. It is empty if there is none.
func (e environment) secret(field reflect.StructField) (string, error) {
	name := field.Tag.Get("envconfig")
	if field.Tag.Get("ignored") != "true" {
		return "", errors.New(`a Secret must be tagged ignored:"true"`)
	}
	if value := e.get(name); value != "" {
		return value, nil
	}
	if path := e.get(name + "_FILE"); path != "" {
		data, err := os.ReadFile(path) //nolint:gosec // The operator chooses the path.
		if err != nil {
			return "", fmt.Errorf("read %s_FILE: %w", name, err)
		}
		return strings.TrimSpace(string(data)), nil
	}
	if field.Tag.Get("generate") != "true" || e.get("ENV") != "development" {
		return "", nil
	}
	dir := e.get("LOCAL_DIR")
	if dir == "" {
		dir = ".local"
	}
	return developmentSecret(dir, name)
}

// GeneratedSecret returns the secret that services in development generate and share for
// a variable that is not set.
func (c Common) GeneratedSecret(variable string) (string, error) {
	return developmentSecret(c.LocalDir, variable)
}

// developmentSecret returns the secret in a file in LOCAL_DIR, which it creates if
// there is none. Services that start at the same time get the same secret, because
// only one of them can link its draft to the path.
func developmentSecret(dir, name string) (string, error) {
	path := filepath.Join(dir, "secrets", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("create secrets folder: %w", err)
	}
	var random [32]byte
	rand.Read(random[:])
	draft, err := os.CreateTemp(filepath.Dir(path), ".draft-*")
	if err != nil {
		return "", fmt.Errorf("write secret: %w", err)
	}
	defer os.Remove(draft.Name())
	_, err = draft.WriteString(base64.RawURLEncoding.EncodeToString(random[:]))
	if err = errors.Join(err, draft.Close()); err != nil {
		return "", fmt.Errorf("write secret: %w", err)
	}
	if err := os.Link(draft.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("write secret: %w", err)
	}
	data, err := os.ReadFile(path) //nolint:gosec // The path is LOCAL_DIR and a constant.
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// Strong returns an error that names the variable if secret is missing, too short,
// too regular or looks like an example.
func Strong(variable string, secret Secret) error {
	text := strings.ToLower(secret.Reveal())
	switch {
	case text == "":
		return fmt.Errorf("%s: missing; set at least 32 random characters, for example from: openssl rand -base64 32", variable)
	case len(secret.Reveal()) < 32: // ToLower makes some bytes longer.
		return fmt.Errorf("%s: too short; at least 32 random characters are needed", variable)
	}
	for _, weak := range []string{"changeme", "change-me", "change_me", "secret", "password", "example"} {
		if strings.Contains(text, weak) {
			return fmt.Errorf("%s: looks like an example; set random characters", variable)
		}
	}
	seen := map[rune]bool{}
	for _, r := range text {
		seen[r] = true
	}
	if len(seen) < 8 {
		return fmt.Errorf("%s: too regular; set random characters", variable)
	}
	return nil
}
