package service

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/joho/godotenv"
	"github.com/kelseyhightower/envconfig"
)

// Common is the part of the configuration that every service has.
type Common struct {
	Env             string        `envconfig:"ENV" default:"production" desc:"production or development. Development reads .env, generates missing secrets and adds details to errors."`
	LogLevel        string        `envconfig:"LOG_LEVEL" default:"info" desc:"debug, info, warn or error."`
	LogFormat       string        `envconfig:"LOG_FORMAT" default:"auto" desc:"json, text, or auto: text on a terminal, else json."`
	OpsAddr         string        `envconfig:"OPS_ADDR" default:":9090" desc:"Address of the internal listener: /livez, /readyz, /metrics. Never publish it."`
	InstanceID      string        `envconfig:"INSTANCE_ID" desc:"Stable name of this instance among its replicas. The host name if empty."`
	LocalDir        string        `envconfig:"LOCAL_DIR" default:".local" desc:"Where development keeps generated secrets."`
	ShutdownTimeout time.Duration `envconfig:"SHUTDOWN_TIMEOUT" default:"30s" desc:"How long a stopping service may take to finish what it has begun."`
}

// CommonConfig lets Main find the common part in a service's configuration.
func (c Common) CommonConfig() Common { return c }

// Development reports whether the service runs on a developer's machine.
func (c Common) Development() bool { return c.Env == "development" }

// Instance returns INSTANCE_ID, or the host's name.
func (c Common) Instance() string {
	if c.InstanceID != "" {
		return c.InstanceID
	}
	host, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return host
}

func (c Common) validate() error {
	var faults []error
	if c.Env != "production" && c.Env != "development" {
		faults = append(faults, errors.New("ENV: want production or development"))
	}
	switch c.LogLevel {
	case "debug", "info", "warn", "error":
	default:
		faults = append(faults, errors.New("LOG_LEVEL: want debug, info, warn or error"))
	}
	switch c.LogFormat {
	case "json", "text", "auto":
	default:
		faults = append(faults, errors.New("LOG_FORMAT: want json, text or auto"))
	}
	if c.ShutdownTimeout <= 0 {
		faults = append(faults, errors.New("SHUTDOWN_TIMEOUT: want a positive duration"))
	}
	return errors.Join(faults...)
}

// Validator is a part of a configuration that can check itself. Its errors
// name the variables.
type Validator interface{ Validate() error }

// Load fills cfg, a pointer to a struct with envconfig tags, from the
// environment, and checks every part of it that is a Validator.
//
//   - A Secret may also come from the file that NAME_FILE names.
//   - With ENV=development, .env is read first (the real environment wins), and
//     a missing Secret tagged `generate:"true"` is made and kept in
//     LOCAL_DIR/secrets, where the other services of the stack find the same.
//
// The error joins all faults that were found, each naming its variable.
func Load(cfg any) error {
	if os.Getenv("ENV") == "development" {
		if err := godotenv.Load(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read .env: %w", err)
		}
	}
	if err := secretFiles(reflect.TypeOf(cfg).Elem()); err != nil {
		return err
	}
	if err := errors.Join(missing(reflect.TypeOf(cfg).Elem())...); err != nil {
		return err
	}
	if err := envconfig.Process("", cfg); err != nil {
		return readable(err)
	}
	return validate(reflect.ValueOf(cfg).Elem())
}

// missing names every required variable that is not set: envconfig stops at the
// first, and takes an empty one for set.
func missing(t reflect.Type) []error {
	var faults []error
	for field := range t.Fields() {
		if field.Anonymous && field.Type.Kind() == reflect.Struct {
			faults = append(faults, missing(field.Type)...)
			continue
		}
		name := field.Tag.Get("envconfig")
		if field.Tag.Get("required") == "true" && os.Getenv(name) == "" {
			faults = append(faults, fmt.Errorf("%s: missing", name))
		}
	}
	return faults
}

// readable names the variable that is malformed. No secret can be: each is text.
func readable(err error) error {
	if parse, ok := errors.AsType[*envconfig.ParseError](err); ok {
		return fmt.Errorf("%s: %w", parse.KeyName, parse.Err)
	}
	return fmt.Errorf("environment: %w", err)
}

func secretFiles(t reflect.Type) error {
	for field := range t.Fields() {
		if field.Anonymous && field.Type.Kind() == reflect.Struct {
			if err := secretFiles(field.Type); err != nil {
				return err
			}
			continue
		}
		if field.Type != reflect.TypeFor[Secret]() {
			continue
		}
		name := field.Tag.Get("envconfig")
		if err := secretFile(name, field.Tag.Get("generate") == "true"); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func secretFile(name string, generate bool) error {
	if os.Getenv(name) != "" {
		return nil
	}
	if path := os.Getenv(name + "_FILE"); path != "" {
		data, err := os.ReadFile(path) //nolint:gosec // The operator chooses the path.
		if err != nil {
			return fmt.Errorf("read %s_FILE: %w", name, err)
		}
		return os.Setenv(name, strings.TrimSpace(string(data)))
	}
	if !generate || os.Getenv("ENV") != "development" {
		return nil
	}
	dir := os.Getenv("LOCAL_DIR")
	if dir == "" {
		dir = ".local"
	}
	value, err := developmentSecret(filepath.Join(dir, "secrets", name))
	if err != nil {
		return err
	}
	return os.Setenv(name, value)
}

// developmentSecret returns the secret in the file at path and makes it first if
// need be. Services that start together agree: a link appears whole or not at all.
func developmentSecret(path string) (string, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil { //nolint:gosec // The path is LOCAL_DIR and a constant.
		return "", fmt.Errorf("make secrets folder: %w", err)
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

func validate(v reflect.Value) error {
	var faults []error
	for field, value := range v.Fields() {
		if !field.Anonymous {
			continue
		}
		if part, ok := reflect.TypeAssert[Validator](value); ok {
			faults = append(faults, part.Validate())
		}
		if common, ok := reflect.TypeAssert[Common](value); ok {
			faults = append(faults, common.validate())
		}
	}
	if whole, ok := reflect.TypeAssert[interface{ ValidateOwn() error }](v); ok {
		faults = append(faults, whole.ValidateOwn())
	}
	return errors.Join(faults...)
}

// Strong returns an error that names the variable if secret is missing, short
// or one of those that people copy from examples.
func Strong(variable string, secret Secret) error {
	text := strings.ToLower(secret.Reveal())
	switch {
	case text == "":
		return fmt.Errorf("%s: missing; set at least 32 random characters, for example from: openssl rand -base64 32", variable)
	case len(text) < 32:
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
