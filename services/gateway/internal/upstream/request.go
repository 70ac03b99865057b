package upstream

import (
	"bufio"
	"errors"
	"net/http"
	"strings"
)

// Edit is how the header of a request differs from Header on its way to a service. To
// make another map of each would cost more than to send it.
type Edit struct {
	Omit func(name string) bool // what does not go on; nil if all does
	Add  []Field                // what goes on besides, whose names Omit reports
}

// Field is one line of a header. Name is in its canonical form.
type Field struct{ Name, Value string }

// Apply returns the header that a service gets in place of h. Values are shared.
func (e Edit) Apply(h http.Header) http.Header {
	sent := make(http.Header, len(h)+len(e.Add))
	for name, values := range h {
		if e.Omit == nil || !e.Omit(name) {
			sent[name] = values
		}
	}
	for _, field := range e.Add {
		sent[field.Name] = []string{field.Value}
	}
	if _, ok := sent["User-Agent"]; !ok {
		sent["User-Agent"] = nil // net/http would put its own.
	}
	return sent
}

var errNewline = errors.New("a part of the request has more than one line")

func hasBody(req *http.Request) bool { return req.Body != nil && req.Body != http.NoBody }

// writeRequest sends req. One with a body, and so with more to get wrong, is
// written by net/http, as it is.
func writeRequest(w *bufio.Writer, req *http.Request, edit Edit) error {
	if hasBody(req) {
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
		if edit.Omit != nil && edit.Omit(name) {
			continue
		}
		for _, value := range values {
			ok = ok && writeLine(w, name, ": ", value)
		}
	}
	for _, field := range edit.Add {
		ok = ok && writeLine(w, field.Name, ": ", field.Value)
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
