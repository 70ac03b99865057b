package web

import "github.com/google/uuid"

// ValidID reports whether text is a UUID in canonical form, the only form in which ids are
// made and compared. Postgres accepts other forms of the same UUID, which would compare as
// different strings.
func ValidID(text string) bool {
	id, err := uuid.Parse(text)
	return err == nil && id.String() == text
}
