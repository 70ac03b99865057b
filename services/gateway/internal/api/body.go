package api

import (
	"bytes"
	"io"
	"net/http"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
)

const maxAvatar = 5 << 20

// streamed reports whether the body of r is passed on as it arrives, because it is too
// large to be buffered.
func streamed(r *http.Request) bool {
	return r.Method == http.MethodPut && r.URL.Path == "/api/v1/user/me/avatar"
}

// checkBodySize rejects a body that is compressed, or larger than its route allows.
func checkBodySize(w http.ResponseWriter, r *http.Request) error {
	if err := web.CheckEncoding(w, r); err != nil {
		return err
	}
	limit := int64(web.MaxBody)
	if streamed(r) {
		limit = maxAvatar
	}
	if r.ContentLength > limit {
		return problem.ErrTooLarge
	}
	if r.ContentLength != 0 {
		r.Body = http.MaxBytesReader(w, r.Body, limit)
	}
	return nil
}

// readBody reads the body of r before the request goes on: a slow client occupies only
// its own connection, and a request that did not reach the service can be sent again. It
// rejects JSON that pkg/web would reject, and returns the value of the member of that
// name, if one is wanted. It leaves a streamed body alone.
func readBody(r *http.Request, member string) (value string, err error) {
	if r.ContentLength == 0 || streamed(r) {
		return "", nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return "", web.BodyFault(err)
	}
	isJSON := web.IsJSON(r)
	if len(body) > 0 && (isJSON || member != "") {
		value, err = web.CheckBody(body, member)
		if err != nil && isJSON {
			return "", err
		}
	}
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Body, _ = r.GetBody()
	r.ContentLength = int64(len(body))
	r.TransferEncoding = nil
	return value, nil
}
