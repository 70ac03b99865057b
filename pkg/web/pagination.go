package web

import (
	"encoding/base64"
	"net/http"
	"strconv"

	"github.com/headgate/headgate/pkg/problem"
)

// Page is the part of a list that a client requests. After is the id of the last item of
// the previous page; it is empty for the first page.
type Page struct {
	Limit int
	After string
}

const (
	defaultLimit = 50
	maxLimit     = 200
)

// Page returns the page that the query of a route with TakesPage requests. Its errors are
// problems; ErrCursor if the cursor is invalid.
func (q Query) Page() (Page, error) {
	p := Page{Limit: defaultLimit}
	if text := q["limit"]; text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxLimit {
			return p, problem.Validation(problem.Field{Field: "limit", Code: "out_of_range", Message: "limit must be a number from 1 to 200."})
		}
		p.Limit = n
	}
	if text := q["cursor"]; text != "" {
		id, err := base64.RawURLEncoding.Strict().DecodeString(text)
		if err != nil || !ValidID(string(id)) {
			return p, ErrCursor
		}
		p.After = string(id)
	}
	return p, nil
}

// ErrCursor says that a cursor is invalid.
var ErrCursor = problem.Validation(problem.Field{Field: "cursor", Code: "invalid_format", Message: "Invalid cursor: use nextCursor of the previous page."})

// SendPage responds with the first page.Limit items. If there are more, the caller passes
// at least one more than that. id returns the id of an item, by which the list is ordered.
func SendPage[T any](w http.ResponseWriter, page Page, items []T, id func(T) string) error {
	meta := Meta{Limit: page.Limit}
	if len(items) > page.Limit {
		items = items[:page.Limit]
		meta.HasMore = true
		meta.NextCursor = base64.RawURLEncoding.EncodeToString([]byte(id(items[len(items)-1])))
	}
	if items == nil {
		items = []T{}
	}
	noteFound(w, len(items))
	return List(w, items, meta)
}
