package web

import (
	"mime"
	"net/http"
	"strings"

	"github.com/headgate/headgate/pkg/problem"
)

const (
	typeJSON       = "application/json"
	typeMergePatch = "application/merge-patch+json" // RFC 7396
)

// AcceptPatch is the value of Accept-Patch for every path that has PATCH (RFC 5789, 3.1).
const AcceptPatch = typeMergePatch + ", " + typeJSON

var (
	errPatchType = problem.New(problem.UnsupportedMedia, problem.ErrMediaType.Code, "Content-Type must be application/merge-patch+json or application/json.")
	errCharset   = problem.New(problem.UnsupportedMedia, problem.ErrMediaType.Code, "Unsupported charset: send the body in UTF-8.")
	errEncoding  = problem.New(problem.UnsupportedMedia, problem.ErrMediaType.Code, "Unsupported Content-Encoding: send the body without compression.")
)

// IsJSON reports whether Read accepts bodies of the Content-Type of r.
func IsJSON(r *http.Request) bool { return checkType(r) == nil }

// IsMergePatch reports whether the body of r is a JSON merge patch. In one, a member that is
// an object changes only what it names, and null removes a member.
func IsMergePatch(r *http.Request) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && kind == typeMergePatch
}

func checkType(r *http.Request) error {
	values := r.Header.Values("Content-Type")
	refused := problem.ErrMediaType
	if r.Method == http.MethodPatch {
		refused = errPatchType
	}
	if len(values) != 1 {
		return refused
	}
	kind, params, err := mime.ParseMediaType(values[0])
	if err != nil || kind != typeJSON && (kind != typeMergePatch || r.Method != http.MethodPatch) {
		return refused
	}
	// utf8 is not a registered name (RFC 9110, 8.3.2), but its meaning is clear.
	switch strings.ToLower(params["charset"]) {
	case "", "utf-8", "utf8":
		return nil
	}
	return errCharset
}

// CheckEncoding refuses a compressed body: a small one can inflate to a huge one. The
// response says which encoding is accepted (RFC 9110, 12.5.3).
func CheckEncoding(w http.ResponseWriter, r *http.Request) error {
	for _, value := range r.Header.Values("Content-Encoding") {
		for coding := range strings.SplitSeq(value, ",") {
			coding = strings.TrimSpace(coding)
			if coding != "" && !strings.EqualFold(coding, "identity") {
				w.Header().Set("Accept-Encoding", "identity")
				return errEncoding
			}
		}
	}
	return nil
}
