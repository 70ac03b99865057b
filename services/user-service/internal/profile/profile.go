// Package profile is what user-service is about: who somebody is to others, and
// how that is changed. It knows no HTTP, no SQL and no broker.
package profile

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // Time zones are checked also where the system has none.
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/language"

	"github.com/headgate/headgate/pkg/problem"
)

// Profile is what others may know of a user, and the user's own settings.
// Version grows with every change.
type Profile struct {
	UserID      string          `json:"userId"`
	Email       string          `json:"email"`
	Name        string          `json:"name"`
	Bio         string          `json:"bio"`
	Locale      string          `json:"locale"`
	Timezone    string          `json:"timezone"`
	AvatarURL   string          `json:"avatarUrl"`
	Preferences json.RawMessage `json:"preferences"`
	CreatedAt   time.Time       `json:"createdAt"`
	UpdatedAt   time.Time       `json:"updatedAt"`
	Version     int64           `json:"-"`
}

// The failures that clients can cause.
var (
	ErrNotFound     = problem.New(problem.NotFound, "profile_not_found", "There is no such profile.")
	ErrPrecondition = problem.New(problem.PreconditionFailed, "precondition_failed", "The profile has changed meanwhile. Read it again.")
)

const (
	maxName        = 100
	maxBio         = 500
	maxPreferences = 8 << 10
)

// Change is what a client wants changed: a member that is nil stays as it is,
// one that is null is cleared.
type Change struct {
	Name        json.RawMessage `json:"name"`
	Bio         json.RawMessage `json:"bio"`
	Locale      json.RawMessage `json:"locale"`
	Timezone    json.RawMessage `json:"timezone"`
	Preferences json.RawMessage `json:"preferences"`
}

// Apply returns p with the change and the names of the fields that are
// different now, in alphabetical order. Its error is a validation problem.
func (c Change) Apply(p Profile) (Profile, []string, error) {
	old := p
	var faults []problem.Field
	set := func(field string, raw json.RawMessage, to *string, parse func(string) (string, *problem.Field)) {
		if raw == nil {
			return
		}
		var text string // null leaves it empty
		if err := json.Unmarshal(raw, &text); err != nil {
			faults = append(faults, fault(field, "invalid_type", "This field is a text."))
			return
		}
		parsed, f := parse(text)
		if f != nil {
			faults = append(faults, *f)
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
		if f != nil {
			faults = append(faults, *f)
		}
		p.Preferences = preferences
	}
	if err := problem.Validation(faults...); err != nil {
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

func fault(field, code, message string) problem.Field {
	return problem.Field{Field: field, Code: code, Message: message}
}

func parseName(text string) (string, *problem.Field) {
	name := strings.TrimSpace(text)
	f := problem.Field{}
	switch {
	case name == "":
		f = fault("name", "required", "A name is needed.")
	case utf8.RuneCountInString(name) > maxName:
		f = fault("name", "too_long", "The name has at most 100 characters.")
	case !line(name):
		f = fault("name", "invalid_format", "The name has characters that cannot be used.")
	default:
		return name, nil
	}
	return "", &f
}

func parseBio(text string) (string, *problem.Field) {
	f := problem.Field{}
	switch {
	case utf8.RuneCountInString(text) > maxBio:
		f = fault("bio", "too_long", "The text has at most 500 characters.")
	case !line(strings.ReplaceAll(text, "\n", " ")):
		f = fault("bio", "invalid_format", "The text has characters that cannot be used.")
	default:
		return text, nil
	}
	return "", &f
}

// parseLocale returns the canonical form of a BCP 47 tag.
func parseLocale(text string) (string, *problem.Field) {
	if text == "" {
		return "", nil
	}
	tag, err := language.Parse(text)
	if err != nil || len(text) > 35 {
		f := fault("locale", "invalid_format", "The locale is a language tag, such as de-CH.")
		return "", &f
	}
	return tag.String(), nil
}

// timezoneForm keeps out what else lies in a machine's folder of time zones,
// such as posix/ and localtime.
var timezoneForm = regexp.MustCompile(`^[A-Z][A-Za-z0-9_+-]*(/[A-Z][A-Za-z0-9_+-]*){0,2}$`)

func parseTimezone(text string) (string, *problem.Field) {
	if text == "" {
		return "", nil
	}
	if _, err := time.LoadLocation(text); err != nil || !timezoneForm.MatchString(text) || text == "Local" || len(text) > 64 {
		f := fault("timezone", "invalid_format", "The time zone is one of the IANA database, such as Europe/Zurich.")
		return "", &f
	}
	return text, nil
}

// parsePreferences returns the object without insignificant space, its members
// in the order of their names, so that what is stored compares.
func parsePreferences(raw json.RawMessage) (json.RawMessage, *problem.Field) {
	if string(raw) == "null" {
		return json.RawMessage("{}"), nil
	}
	if len(raw) > maxPreferences {
		f := fault("preferences", "too_long", "The preferences have at most 8 KiB.")
		return nil, &f
	}
	var object map[string]any
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(&object); err != nil || bytes.Contains(bytes.ReplaceAll(raw, []byte(`\\`), nil), []byte(`\u0000`)) {
		f := fault("preferences", "invalid_type", "The preferences are an object.")
		return nil, &f
	}
	encoded, err := json.Marshal(object)
	if err != nil {
		f := fault("preferences", "invalid_type", "The preferences are an object.")
		return nil, &f
	}
	return encoded, nil
}

// line reports whether s is text without control characters.
func line(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || r == '\u2028' || r == '\u2029'
	})
}
