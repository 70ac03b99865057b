package service

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"reflect"
	"time"

	"github.com/joho/godotenv"
	"github.com/kelseyhightower/envconfig"
)

// Common is the part of the configuration that every service has.
type Common struct {
	Env             string        `envconfig:"ENV" default:"production" desc:"production or development. In development, .env is read, missing secrets are generated, and errors have details."`
	LogLevel        string        `envconfig:"LOG_LEVEL" default:"info" desc:"debug, info, warn or error."`
	LogFormat       string        `envconfig:"LOG_FORMAT" default:"auto" desc:"json, text, or auto: text on a terminal, else json."`
	OpsAddr         string        `envconfig:"OPS_ADDR" default:"127.0.0.1:9090" desc:"Address of the internal listener: /livez, /readyz, /metrics and profiles, over plain HTTP. The default is for this machine alone. Do not expose it publicly."`
	InstanceID      string        `envconfig:"INSTANCE_ID" desc:"Stable name of this instance, unique among its replicas: of two with one name, the second reads no events and is not ready. Default: the host name."`
	LocalDir        string        `envconfig:"LOCAL_DIR" default:".local" desc:"Folder of the secrets that are generated in development."`
	ShutdownTimeout time.Duration `envconfig:"SHUTDOWN_TIMEOUT" default:"30s" desc:"How long a stopping service may take to finish the work in flight."`
}

// CommonConfig returns the common part of a service's configuration.
func (c Common) CommonConfig() Common { return c }

// Development reports whether the service runs on a developer's machine.
func (c Common) Development() bool { return c.Env == "development" }

// CheckURL returns an error that names the variable unless text is an http(s) URL with a
// host. In production, http is an error, too: anybody on the way could read the tokens.
// This machine is an exception, so that an installation can be tried out.
func (c Common) CheckURL(name, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return fmt.Errorf("%s: want http(s)://host", name)
	}
	local := u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback()
	if u.Scheme == "http" && !local && !c.Development() {
		return fmt.Errorf("%s: want https in production, except for localhost", name)
	}
	return nil
}

// Instance returns INSTANCE_ID, or the host name if it is empty.
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

// Validate implements Validator.
func (c Common) Validate() error {
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

// Validator is a part of a configuration that checks itself. Its errors name the
// variables.
type Validator interface{ Validate() error }

// ownValidator is a configuration with fields of its own beside the embedded parts.
// The method is not called Validate, since a configuration without it would
// inherit that of a part.
type ownValidator interface{ ValidateOwn() error }

// Load fills cfg, a pointer to a struct whose fields are tagged
// `envconfig:"NAME"`, from the environment. Then it calls Validate on every
// embedded part that is a Validator and embeds nothing, and ValidateOwn on cfg if
// it has that method.
//
//   - Load reads a Secret itself, and envconfig everything else: a Secret must be
//     tagged `ignored:"true"`. It may also come from the file that NAME_FILE names.
//   - With ENV=development, variables that are not set are taken from the file
//     .env, and a missing Secret tagged `generate:"true"` is generated and kept in
//     LOCAL_DIR/secrets, where the other services of the stack find it.
//
// Load leaves the environment of the process as it was, which child processes
// inherit and other programs can read. The error joins all variables that are
// missing, or names the first that is malformed, or joins what validation found.
// Load must not run while other goroutines use the environment.
func Load(cfg any) error {
	env := environment{}
	if os.Getenv("ENV") == "development" {
		var err error
		if env.file, err = godotenv.Read(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read .env: %w", err)
		}
	}
	v := reflect.ValueOf(cfg).Elem()
	if err := errors.Join(env.readSecrets(v)...); err != nil {
		return err
	}
	if err := env.process(cfg); err != nil {
		return err
	}
	return validate(v)
}

// environment is the environment of the process, with the variables of a file for
// those that are not set.
type environment struct{ file map[string]string }

func (e environment) get(name string) string {
	if value, ok := os.LookupEnv(name); ok {
		return value
	}
	return e.file[name]
}

// readSecrets sets the Secrets of a struct and of the structs that it embeds. It
// returns those that cannot be read, and every required variable that is missing:
// envconfig stops at the first, and accepts an empty one.
func (e environment) readSecrets(v reflect.Value) []error {
	var faults []error
	for field, value := range v.Fields() {
		name := field.Tag.Get("envconfig")
		missing := e.get(name) == ""
		switch {
		case field.Anonymous && field.Type.Kind() == reflect.Struct:
			faults = append(faults, e.readSecrets(value)...)
			continue
		case field.Type == reflect.TypeFor[Secret]():
			secret, err := e.secret(field)
			if err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", name, err))
				continue
			}
			value.SetString(secret)
			missing = secret == ""
		}
		if missing && field.Tag.Get("required") == "true" {
			faults = append(faults, fmt.Errorf("%s: missing", name))
		}
	}
	return faults
}

// process fills all fields but Secrets with envconfig. Since envconfig reads nothing but
// the environment of the process, variables from the file are set there while it runs.
func (e environment) process(cfg any) error {
	for _, name := range plainVariables(reflect.TypeOf(cfg).Elem()) {
		value, inFile := e.file[name]
		if _, set := os.LookupEnv(name); set || !inFile {
			continue
		}
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		defer os.Unsetenv(name)
	}
	err := envconfig.Process("", cfg)
	if parse, ok := errors.AsType[*envconfig.ParseError](err); ok {
		return fmt.Errorf("%s: %w", parse.KeyName, parse.Err) // The value is not a Secret, so the error may quote it.
	}
	if err != nil {
		return fmt.Errorf("environment: %w", err)
	}
	return nil
}

// plainVariables returns the names of the variables of a struct type and of the structs
// that it embeds, without those of Secrets.
func plainVariables(t reflect.Type) []string {
	var names []string
	for field := range t.Fields() {
		switch name := field.Tag.Get("envconfig"); {
		case field.Anonymous && field.Type.Kind() == reflect.Struct:
			names = append(names, plainVariables(field.Type)...)
		case name != "" && field.Type != reflect.TypeFor[Secret]():
			names = append(names, name)
		}
	}
	return names
}

// validate calls ValidateOwn on a configuration and Validate on its parts, also on
// those of a part that only groups others.
func validate(v reflect.Value) error {
	var faults []error
	for field, value := range v.Fields() {
		if !field.Anonymous {
			continue
		}
		if groups(field.Type) {
			faults = append(faults, validate(value))
		} else if part, ok := reflect.TypeAssert[Validator](value); ok {
			faults = append(faults, part.Validate())
		}
	}
	if own, ok := reflect.TypeAssert[ownValidator](v); ok {
		faults = append(faults, own.ValidateOwn())
	}
	return errors.Join(faults...)
}

// groups reports whether t embeds other parts. Go would promote the Validate of one of
// them to t.
func groups(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	for field := range t.Fields() {
		if field.Anonymous {
			return true
		}
	}
	return false
}
