package api

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/audit-service/internal/store"
)

// exportPage is how many records of an export are in memory at a time.
const exportPage = 500

// export sends all records of the caller, newest first, as they are read. The response breaks
// off if the database fails, so an incomplete export does not look complete.
func (a *api) export(w http.ResponseWriter, r *http.Request) error {
	caller := web.Caller(r).UserID
	first, err := a.log.List(r.Context(), store.Filter{Party: caller}, "", exportPage)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	separator := `{"events":[`
	for page := first; ; {
		for _, record := range page {
			data, err := json.Marshal(shown(record, caller))
			if err != nil {
				return fmt.Errorf("encode audit record: %w", err)
			}
			if _, err := io.WriteString(w, separator+string(data)); err != nil {
				return nil //nolint:nilerr // The client has left.
			}
			separator = ","
		}
		if len(page) < exportPage {
			break
		}
		if page, err = a.log.List(r.Context(), store.Filter{Party: caller}, cursor.ByID(page[len(page)-1].ID), exportPage); err != nil {
			panic(fmt.Errorf("read more records of an export: %w", err)) // It is logged, and the response breaks off.
		}
	}
	if separator != "," {
		_, _ = io.WriteString(w, separator)
	}
	_, _ = io.WriteString(w, "]}") // An error is the client's: it has left.
	return nil
}
