// Package profile has the rules of user profiles: what they contain and how they change.
// It knows no HTTP, no SQL and no message broker.
package profile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"
	_ "time/tzdata" // Time zones can be checked on systems that have no time zone database.

	"golang.org/x/text/language"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/textfield"
)

// Profile is the public data of a user and the user's own settings. Version grows with
// every change. Avatar is the name of the avatar: the store and the cache have it, and no response,
// which has AvatarURL in its place.
type Profile struct {
	UserID      string          `json:"userId"`
	Email       string          `json:"email"`
	Name        string          `json:"name"`
	Bio         string          `json:"bio"`
	Locale      string          `json:"locale"`
	Timezone    string          `json:"timezone"`
	AvatarURL   string          `json:"avatarUrl"` // made of Avatar for a response; see Avatars
	Avatar      string          `json:"avatar,omitempty"`
	Preferences json.RawMessage `json:"preferences"`
	CreatedAt   time.Time       `json:"createdAt"`
	UpdatedAt   time.Time       `json:"updatedAt"`
	Version     int64           `json:"-"`
	// AccountVersion is the version of the account that had the address, in microseconds since
	// 1970; 0 if unknown.
	AccountVersion int64 `json:"-"`
}

// Errors that clients can cause.
var (
	ErrNotFound = problem.New(problem.NotFound, "profile_not_found", "Profile not found.")
	// ErrErased is an ErrNotFound that stays: nothing creates the profile again.
	ErrErased       = fmt.Errorf("erased: %w", ErrNotFound)
	ErrPrecondition = problem.New(problem.PreconditionFailed, "precondition_failed", "The profile was changed in the meantime. Read it again, then retry.")
)

const (
	maxName        = 100
	maxBio         = 500
	maxPreferences = 8 << 10
)

// Change is a client's change to a profile: a field that is nil stays as it is, and a
// field that is null is cleared.
type Change struct {
	Name        json.RawMessage `json:"name"`
	Bio         json.RawMessage `json:"bio"`
	Locale      json.RawMessage `json:"locale"`
	Timezone    json.RawMessage `json:"timezone"`
	Preferences json.RawMessage `json:"preferences"`

	// Merge says that the change is a JSON merge patch: preferences keep the members that it
	// does not name, at every level. Otherwise they are replaced.
	Merge bool `json:"-"`
}

// Apply returns the changed profile and the names of the fields that differ from p, in
// alphabetical order. It fails with a validation problem.
func (c Change) Apply(p Profile) (Profile, []string, error) {
	old := p
	var invalid []problem.Field
	set := func(field string, raw json.RawMessage, to *string, parse func(string) (string, *problem.Field)) {
		if raw == nil {
			return
		}
		var text string // null leaves it empty
		if err := json.Unmarshal(raw, &text); err != nil {
			invalid = append(invalid, invalidField(field, "invalid_type", "This field must be a string."))
			return
		}
		parsed, f := parse(text)
		if f != nil {
			invalid = append(invalid, *f)
			return
		}
		*to = parsed
	}
	set("name", c.Name, &p.Name, parseName)
	set("bio", c.Bio, &p.Bio, parseBio)
	set("locale", c.Locale, &p.Locale, parseLocale)
	set("timezone", c.Timezone, &p.Timezone, parseTimezone)
	if c.Preferences != nil {
		preferences, f := parsePreferences(c.Preferences)
		if f == nil && c.Merge {
			preferences, f = mergePreferences(old.Preferences, c.Preferences)
		}
		if f != nil {
			invalid = append(invalid, *f)
		}
		p.Preferences = preferences
	}
	if err := problem.Validation(invalid...); err != nil {
		return old, nil, err
	}
	return p, changed(old, p), nil
}

func changed(old, p Profile) []string {
	var fields []string
	for field, differs := range map[string]bool{
		"name": old.Name != p.Name, "bio": old.Bio != p.Bio, "locale": old.Locale != p.Locale,
		"timezone": old.Timezone != p.Timezone, "preferences": !bytes.Equal(old.Preferences, p.Preferences),
	} {
		if differs {
			fields = append(fields, field)
		}
	}
	slices.Sort(fields)
	return fields
}

func invalidField(field, code, message string) problem.Field {
	return problem.Field{Field: field, Code: code, Message: message}
}

func parseName(text string) (string, *problem.Field) {
	name, f := textfield.Line("name", text, maxName)
	if f == nil && name == "" {
		missing := invalidField("name", "required", "Name is required.")
		f = &missing
	}
	return name, f
}

func parseBio(text string) (string, *problem.Field) { return textfield.Lines("bio", text, maxBio) }

// parseLocale returns the canonical form of a BCP 47 tag.
func parseLocale(text string) (string, *problem.Field) {
	if text == "" {
		return "", nil
	}
	tag, err := language.Parse(text)
	if err != nil || len(text) > 35 {
		f := invalidField("locale", "invalid_format", "Invalid locale: use a language tag, for example de-CH.")
		return "", &f
	}
	return tag.String(), nil
}

// timezoneForm excludes the other files in a system's time zone folder, such as posix/ and
// localtime.
var timezoneForm = regexp.MustCompile(`^[A-Z][A-Za-z0-9_+-]*(/[A-Z][A-Za-z0-9_+-]*){0,2}$`)

func parseTimezone(text string) (string, *problem.Field) {
	if text == "" {
		return "", nil
	}
	if _, err := time.LoadLocation(text); err != nil || !timezoneForm.MatchString(text) || text == "Local" || len(text) > 64 {
		f := invalidField("timezone", "invalid_format", "Invalid time zone: use an IANA name, for example Europe/Zurich.")
		return "", &f
	}
	return text, nil
}

// parsePreferences returns the object without insignificant white space and with its
// members sorted by name, so that equal preferences have equal bytes.
func parsePreferences(raw json.RawMessage) (json.RawMessage, *problem.Field) {
	if string(raw) == "null" {
		return json.RawMessage("{}"), nil
	}
	if len(raw) > maxPreferences {
		return nil, &tooLongPreferences
	}
	var object map[string]any
	if err := decode(raw, &object); err != nil {
		f := invalidField("preferences", "invalid_type", "The preferences must be a JSON object.")
		return nil, &f
	}
	encoded, err := json.Marshal(object)
	if err != nil {
		f := invalidField("preferences", "invalid_type", "The preferences must be a JSON object.")
		return nil, &f
	}
	return encoded, nil
}

var tooLongPreferences = invalidField("preferences", "too_long", "The preferences must have at most 8 KiB.")

func decode(raw json.RawMessage, to any) error {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	return decoder.Decode(to)
}

// mergePreferences applies a patch that parsePreferences accepts (RFC 7396).
func mergePreferences(old, patch json.RawMessage) (json.RawMessage, *problem.Field) {
	var target, change any
	if decode(old, &target) != nil || decode(patch, &change) != nil {
		return parsePreferences(patch)
	}
	merged, err := json.Marshal(mergePatch(target, change))
	if err == nil && len(merged) > maxPreferences {
		return nil, &tooLongPreferences
	}
	return parsePreferences(merged)
}

func mergePatch(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	merged := map[string]any{}
	if members, ok := target.(map[string]any); ok {
		maps.Copy(merged, members)
	}
	for name, change := range changes {
		if change == nil {
			delete(merged, name)
			continue
		}
		merged[name] = mergePatch(merged[name], change)
	}
	return merged
}
