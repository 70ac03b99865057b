package web

import (
	"encoding/json"
	"net/http"
	"time"
)

// ExportPath is where a service answers with everything that it holds about the caller, as one
// JSON object without an envelope. Only services reach it: the gateway does not route it.
const ExportPath = "/internal/v1/export"

// ExportLinkPath is where auth-service mails a link to an export of the caller, whose secret is in
// an ExportLink, to the address of the account. Only services reach it.
const ExportLinkPath = "/internal/v1/export-link"

// ExportLink is the body of a request to ExportLinkPath.
type ExportLink struct {
	Secret    string    `json:"secret"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// ExportRoute is the route at ExportPath.
func ExportRoute(handler Handler) Route {
	return Route{Method: http.MethodGet, Path: ExportPath, Access: SignedIn, Handler: handler}
}

// Export is ExportRoute for an object that load returns.
func Export(load func(r *http.Request, userID string) (json.RawMessage, error)) Route {
	return ExportRoute(func(w http.ResponseWriter, r *http.Request) error {
		data, err := load(r, Caller(r).UserID)
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(data) // An error is the client's: it has left.
		return nil
	})
}
