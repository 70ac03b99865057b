package upstream

import (
	"bufio"
	"errors"
	"net/http"
	"strings"
)

var errNewline = errors.New("a part of the request has more than one line")

// writeRequest sends req. One with a body, and so with more to get wrong, is
// written by net/http.
func writeRequest(w *bufio.Writer, req *http.Request) error {
	if req.Body != nil && req.Body != http.NoBody {
		if err := req.Write(w); err != nil {
			return err
		}
		return w.Flush()
	}
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	// A part that is refused leaves its beginning in the buffer: the connection is
	// of no use then.
	ok := writeLine(w, req.Method, " ", req.URL.RequestURI(), " HTTP/1.1") && writeLine(w, "Host: ", host)
	for name, values := range req.Header {
		switch name {
		case "Host", "Content-Length", "Transfer-Encoding", "Trailer":
			continue
		}
		for _, value := range values {
			ok = ok && writeLine(w, name, ": ", value)
		}
	}
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		ok = ok && writeLine(w, "Content-Length: 0")
	}
	if ok = ok && writeLine(w); !ok {
		return errNewline
	}
	return w.Flush()
}

// writeLine reports whether the parts are one line. What fails to be written is
// told by Flush.
func writeLine(w *bufio.Writer, parts ...string) bool {
	for _, part := range parts {
		if strings.IndexByte(part, '\n') >= 0 || strings.IndexByte(part, '\r') >= 0 { // ContainsAny takes ten times as long.
			return false
		}
		_, _ = w.WriteString(part)
	}
	_, _ = w.WriteString("\r\n")
	return true
}
