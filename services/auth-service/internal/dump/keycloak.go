package dump

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

type keycloakUser struct {
	ID                     string
	Username               string
	Email                  string
	EmailVerified          bool
	FirstName, LastName    string
	Enabled                *bool
	Totp                   bool
	CreatedTimestamp       int64
	ServiceAccountClientID string
	Attributes             map[string]any
	RealmRoles, Groups     []string
	ClientRoles            map[string]any
	FederatedIdentities    []any
	Credentials            []keycloakCredential
}

// keycloakCredential has JSON in strings. Whatever is in additionalParameters is a list.
type keycloakCredential struct {
	Type, SecretData, CredentialData string
}

// Keycloak reads the JSON file of kc.sh export, or of users in files of their own.
func Keycloak(in io.Reader, out Out) error {
	kind := source{id: "username"}
	return kind.end(eachOf(in, "users", func(at string, value jsontext.Value) error {
		var u keycloakUser
		if err := json.Unmarshal(value, &u); err != nil {
			out.LeftOut(at, u.Email, err.Error())
			return nil
		}
		if err := kind.user(at, u.Username); err != nil {
			return err
		}
		if u.ServiceAccountClientID != "" {
			out.LeftOut(at, u.Username, reasonTechnical)
			return nil
		}
		if u.Email == "" && strings.Contains(u.Username, "@") {
			u.Email, u.EmailVerified = u.Username, false
		}
		lost := losses{}
		hash, factor, err := u.hash()
		lost[LostHash] = err != nil
		lost[LostFactors] = factor || u.Totp
		lost[LostProviders] = len(u.FederatedIdentities) > 0
		lost[LostRoles] = len(u.ClientRoles)+len(u.Groups) > 0 || u.hasRoles()
		lost[LostMetadata] = len(u.Attributes) > 0
		return out.send(at, User{
			Email: u.Email, EmailVerified: u.EmailVerified, Name: u.FirstName + " " + u.LastName,
			Disabled: u.Enabled != nil && !*u.Enabled, PasswordHash: hash, CreatedAt: ms(u.CreatedTimestamp),
		}, u.ID, lost)
	}))
}

// hasRoles reports whether the user has roles that not everybody has.
func (u keycloakUser) hasRoles() bool {
	for _, role := range u.RealmRoles {
		if !strings.HasPrefix(role, "default-roles-") && role != "offline_access" && role != "uma_authorization" {
			return true
		}
	}
	return false
}

// hash returns the hash of the password, or none with the reason, and whether there is a second
// factor.
func (u keycloakUser) hash() (hash string, factor bool, err error) {
	for _, c := range u.Credentials {
		switch {
		case c.Type == "password" && hash == "":
			hash, err = c.phc()
		case c.Type == "otp", c.Type == "totp", c.Type == "hotp", strings.HasPrefix(c.Type, "webauthn"), c.Type == "recovery-authn-codes":
			factor = true
		}
	}
	return hash, factor, err
}

func (c keycloakCredential) phc() (string, error) {
	var secret struct{ Value, Salt string }
	var how struct {
		HashIterations       int
		Algorithm            string
		AdditionalParameters map[string][]string
	}
	if err := json.Unmarshal([]byte(c.SecretData), &secret); err != nil {
		return "", fmt.Errorf("secretData: %w", err)
	}
	if err := json.Unmarshal([]byte(c.CredentialData), &how); err != nil {
		return "", fmt.Errorf("credentialData: %w", err)
	}
	salt, err := base64Form(secret.Salt)
	if err != nil {
		return "", fmt.Errorf("salt: %w", err)
	}
	value, err := base64Form(secret.Value)
	if err != nil {
		return "", fmt.Errorf("hash: %w", err)
	}
	more := func(name string) string { return strings.Join(how.AdditionalParameters[name], ",") }
	switch how.Algorithm {
	case "pbkdf2", "pbkdf2-sha256", "pbkdf2-sha512":
		return fmt.Sprintf("$%s$i=%d$%s$%s", how.Algorithm, how.HashIterations, salt, value), nil
	case "argon2":
		if more("version") == "1.3" && (more("type") == "id" || more("type") == "i") {
			return fmt.Sprintf("$argon2%s$v=19$m=%s,t=%d,p=%s$%s$%s", more("type"), more("memory"), how.HashIterations, more("parallelism"), salt, value), nil
		}
	}
	return "", fmt.Errorf("unsupported algorithm %q", how.Algorithm)
}
