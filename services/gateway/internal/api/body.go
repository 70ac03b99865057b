package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
)

const maxAvatar = 5 << 20

// streamed reports whether the body of r goes through as it comes: it is too large to
// be held here.
func streamed(r *http.Request) bool {
	return r.Method == http.MethodPut && r.URL.Path == "/api/v1/user/me/avatar"
}

// limited refuses a body that its route cannot want.
func limited(w http.ResponseWriter, r *http.Request) error {
	if r.Header.Get("Content-Encoding") != "" {
		return problem.ErrMediaType // A service would have to inflate what may be huge.
	}
	longest := int64(web.MaxBody)
	if streamed(r) {
		longest = maxAvatar
	}
	if r.ContentLength > longest {
		return problem.ErrTooLarge
	}
	if r.ContentLength != 0 {
		r.Body = http.MaxBytesReader(w, r.Body, longest)
	}
	return nil
}

// buffered reads the body of r, before a service is troubled: a client that takes its
// time occupies nothing but its own connection, and a request that did not reach the
// service can be sent again. One of JSON must be such as pkg/web reads. What is
// streamed has no body here.
func buffered(r *http.Request) ([]byte, error) {
	if r.ContentLength == 0 || streamed(r) {
		return nil, nil
	}
	body, err := io.ReadAll(r.Body)
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, problem.ErrTooLarge
	}
	if err != nil {
		return nil, fmt.Errorf("read body: %w: %w", err, problem.ErrMalformedBody)
	}
	if err := web.CheckBody(r.Header.Get("Content-Type"), body); err != nil {
		return nil, err
	}
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Body, _ = r.GetBody()
	r.ContentLength = int64(len(body))
	r.TransferEncoding = nil
	return body, nil
}
