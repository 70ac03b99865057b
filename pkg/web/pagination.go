package web

import (
	"encoding/base64"
	"net/http"
	"strconv"

	"github.com/headgate/headgate/pkg/problem"
)

// Page is which part of a list a client asks for. After is the id of the last
// item of the page before, empty for the first page.
type Page struct {
	Limit int
	After string
}

const (
	defaultLimit = 50
	maxLimit     = 200
)

// ReadPage reads ?limit= and ?cursor=. Its errors are problems: ErrCursor if the
// cursor holds no id.
func ReadPage(r *http.Request) (Page, error) {
	p := Page{Limit: defaultLimit}
	query := r.URL.Query()
	if text := query.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxLimit {
			return p, problem.Validation(problem.Field{Field: "limit", Code: "out_of_range", Message: "The limit is a number from 1 to 200."})
		}
		p.Limit = n
	}
	if text := query.Get("cursor"); text != "" {
		id, err := base64.RawURLEncoding.Strict().DecodeString(text)
		if err != nil || !ValidID(string(id)) {
			return p, ErrCursor
		}
		p.After = string(id)
	}
	return p, nil
}

// ErrCursor says that a cursor is none of ours.
var ErrCursor = problem.Validation(problem.Field{Field: "cursor", Code: "invalid_format", Message: "The cursor is not one that this list gave."})

// SendPage answers with the first page.Limit of items, of which the caller read
// one more than that if there are more. id returns an item's id, by which the
// list is in order.
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
	return List(w, items, meta)
}
