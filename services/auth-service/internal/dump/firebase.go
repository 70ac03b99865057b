package dump

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// FirebaseHashes are the hash parameters of a project, without its signer key.
type FirebaseHashes struct {
	KeyID     string // of the signer key in FIREBASE_SIGNER_KEYS
	Separator string // in base64
	Rounds    int
	MemCost   int
}

var hashConfigLine = regexp.MustCompile(`"?(\w+)"?\s*[:=]\s*"?([A-Za-z0-9+/=_-]+)"?`)

// ParseFirebaseHashes reads the parameters as the console shows them ("hash_config { … }"), or
// as JSON with the same names. It does not keep the signer key.
func ParseFirebaseHashes(text, keyID string) (FirebaseHashes, error) {
	values := map[string]string{}
	for _, found := range hashConfigLine.FindAllStringSubmatch(text, -1) {
		values[found[1]] = found[2]
	}
	h := FirebaseHashes{KeyID: keyID}
	var roundsErr, costErr, separatorErr error
	h.Rounds, roundsErr = strconv.Atoi(values["rounds"])
	h.MemCost, costErr = strconv.Atoi(values["mem_cost"])
	h.Separator, separatorErr = base64Form(values["base64_salt_separator"])
	if algorithm, ok := values["algorithm"]; ok && algorithm != "SCRYPT" {
		return h, fmt.Errorf("unsupported algorithm %s: want SCRYPT", algorithm)
	}
	if errors.Join(roundsErr, costErr, separatorErr) != nil {
		return h, errors.New("want base64_salt_separator, rounds and mem_cost, as the Firebase console shows them")
	}
	return h, nil
}

type firebaseUser struct {
	LocalID            string
	Email              string
	EmailVerified      bool
	DisplayName        string
	PasswordHash, Salt string
	Disabled           bool
	CreatedAt          string // in milliseconds
	CustomAttributes   string
	ProviderUserInfo   []struct{ ProviderID string }
	MFAInfo            []any
}

// Firebase reads the JSON file of firebase auth:export.
func Firebase(in io.Reader, hashes FirebaseHashes, out Out) error {
	kind := source{id: "localId"}
	return kind.end(eachOf(in, "users", func(at string, value jsontext.Value) error {
		var u firebaseUser
		if err := json.Unmarshal(value, &u); err != nil {
			out.LeftOut(at, u.Email, err.Error())
			return nil
		}
		if err := kind.user(at, u.LocalID); err != nil {
			return err
		}
		hash := ""
		if u.PasswordHash != "" {
			var err error
			if hash, err = hashes.phc(u); err != nil {
				out.LeftOut(at, u.Email, err.Error())
				return nil
			}
		}
		other := false
		for _, p := range u.ProviderUserInfo {
			other = other || p.ProviderID != "password"
		}
		lost := losses{}
		lost[LostProviders] = other
		lost[LostFactors] = len(u.MFAInfo) > 0
		lost[LostMetadata] = u.CustomAttributes != "" && u.CustomAttributes != "{}"
		created, _ := strconv.ParseInt(u.CreatedAt, 10, 64) // Without it, the time of the import is stored.
		return out.send(at, User{
			Email: u.Email, EmailVerified: u.EmailVerified, Name: u.DisplayName, Disabled: u.Disabled,
			PasswordHash: hash, CreatedAt: ms(created),
		}, u.LocalID, lost)
	}))
}

func (h FirebaseHashes) phc(u firebaseUser) (string, error) {
	salt, err := base64Form(u.Salt)
	if err != nil {
		return "", fmt.Errorf("salt: %w", err)
	}
	hash, err := base64Form(u.PasswordHash)
	if err != nil {
		return "", fmt.Errorf("passwordHash: %w", err)
	}
	return fmt.Sprintf("$fbscrypt$v=1,n=%d,r=%d,p=1,ss=%s,keyid=%s$%s$%s", h.MemCost, h.Rounds, h.Separator, h.KeyID, salt, hash), nil
}
