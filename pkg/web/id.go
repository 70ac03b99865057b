package web

import "github.com/google/uuid"

// ValidID reports whether text is an id in the one form in which ids are made
// and compared. A UUID can be written in others, which a comparison takes for
// something else and Postgres takes for the same, or for none.
func ValidID(text string) bool {
	id, err := uuid.Parse(text)
	return err == nil && id.String() == text
}
