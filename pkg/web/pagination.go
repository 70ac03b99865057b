package web

import (
	"net/http"
	"strconv"

	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/pkg/problem"
)

// Page is the part of a list that a client requests. After is the place of the last item of
// the previous page; it is zero for the first page.
type Page struct {
	Limit int
	After cursor.Position
}

const (
	defaultLimit = 50
	maxLimit     = 200
)

// Page returns the page that the query of a route with TakesPage requests, of a list in the
// order of cursor.At. Its errors are problems; ErrCursor if the cursor is invalid.
func (q Query) Page() (Page, error) { return q.page(cursor.Parse) }

// PageByID is Page for a list in the order of cursor.ByID.
func (q Query) PageByID() (Page, error) { return q.page(cursor.ParseID) }

func (q Query) page(parse func(string) (cursor.Position, error)) (Page, error) {
	p := Page{Limit: defaultLimit}
	if text := q["limit"]; text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxLimit {
			return p, problem.Validation(problem.Field{Field: "limit", Code: "out_of_range", Message: "limit must be a number from 1 to 200."})
		}
		p.Limit = n
	}
	if text := q["cursor"]; text != "" {
		var err error
		if p.After, err = parse(text); err != nil {
			return p, ErrCursor
		}
	}
	return p, nil
}

// ErrCursor says that a cursor is invalid.
var ErrCursor = problem.Validation(problem.Field{Field: "cursor", Code: "invalid_format", Message: "Invalid cursor: use nextCursor of the previous page, or start again without a cursor."})

// SendPage responds with the first page.Limit items. If there are more, the caller passes
// at least one more than that. position returns the place of an item in the list.
func SendPage[T any](w http.ResponseWriter, page Page, items []T, position func(T) cursor.Position) error {
	meta := Meta{Limit: page.Limit}
	if len(items) > page.Limit {
		items = items[:page.Limit]
		meta.HasMore = true
		meta.NextCursor = position(items[len(items)-1]).Encode()
	}
	if items == nil {
		items = []T{}
	}
	noteFound(w, len(items))
	return List(w, items, meta)
}
