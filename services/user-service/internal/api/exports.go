package api

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/headgate/headgate/pkg/web"
)

func (a *api) export(w http.ResponseWriter, r *http.Request) error {
	caller, err := callingUser(r)
	if err != nil {
		return err
	}
	data, err := a.exports.Download(r.Context(), caller)
	if err != nil {
		return err
	}
	return sendExport(w, data)
}

func (a *api) mailExport(w http.ResponseWriter, r *http.Request) error {
	caller, err := callingUser(r)
	if err != nil {
		return err
	}
	expires, err := a.exports.Mail(r.Context(), caller)
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusAccepted, struct {
		Status    string    `json:"status"`
		ExpiresAt time.Time `json:"expiresAt"`
	}{"mailed", expires})
}

// openExport needs no token: the secret in the mailed link is enough, until it expires.
func (a *api) openExport(w http.ResponseWriter, r *http.Request) error {
	data, err := a.exports.Open(r.Context(), web.QueryOf(r)["token"])
	if err != nil {
		return err
	}
	return sendExport(w, data)
}

// sendExport sends compressed JSON as a file. It is decompressed here, since browsers save a
// download as it was sent.
func sendExport(w http.ResponseWriter, data []byte) error {
	zip, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("decompress export: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Content-Disposition", `attachment; filename="export.json"`)
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	if _, err := io.Copy(w, zip); err != nil { //nolint:gosec // This service has compressed it, within a limit.
		panic(http.ErrAbortHandler) // The client has left.
	}
	return nil
}
