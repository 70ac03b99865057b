package docs

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"

	"github.com/headgate/headgate/pkg/web"
)

// file is a file to serve. It is kept compressed, as most clients accept it, and inflated
// for the first client that does not.
type file struct {
	contentType string
	policy      string // Content-Security-Policy, in place of the default
	tag         string
	gzipped     []byte // nil if compression is not worth it
	plain       func() ([]byte, error)
}

func newPlain(data []byte, contentType string) *file {
	return &file{contentType: contentType, tag: tagOf(data), plain: func() ([]byte, error) { return data, nil }}
}

func newGzipped(data []byte, contentType string) *file {
	return &file{contentType: contentType, tag: tagOf(data), gzipped: data, plain: sync.OnceValues(func() ([]byte, error) {
		return inflate(data)
	})}
}

func compress(data []byte, contentType string) (*file, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	return newGzipped(b.Bytes(), contentType), nil
}

func inflate(data []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("inflate: %w", err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		return nil, fmt.Errorf("inflate: %w", err)
	}
	return plain, nil
}

func tagOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

// serve responds to GET and HEAD. Clients must revalidate their copy every time, because
// the content of a file can change under the same name.
func (f *file) serve(w http.ResponseWriter, r *http.Request) {
	data, tag, encoding := f.gzipped, `"`+f.tag+`-gzip"`, "gzip"
	if data == nil || !httpguts.HeaderValuesContainsToken(r.Header["Accept-Encoding"], "gzip") {
		tag, encoding = `"`+f.tag+`"`, ""
		var err error
		if data, err = f.plain(); err != nil {
			web.Fail(w, r, err)
			return
		}
	}
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", tag)
	if f.gzipped != nil {
		h.Set("Vary", "Accept-Encoding")
	}
	if f.policy != "" {
		web.SetPageHeaders(h, f.policy)
	}
	if matches(r.Header.Values("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.contentType)
	h.Set("Content-Length", strconv.Itoa(len(data)))
	if encoding != "" {
		h.Set("Content-Encoding", encoding)
	}
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(data) // The client has gone, so the error can be ignored.
}

// matches reports whether If-None-Match matches tag, by weak comparison (RFC 9110, 13.1.2).
func matches(headers []string, tag string) bool {
	for candidate := range strings.SplitSeq(strings.Join(headers, ","), ",") {
		candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
		if candidate == "*" || candidate == tag {
			return true
		}
	}
	return false
}
