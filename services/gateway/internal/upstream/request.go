package upstream

import (
	"bufio"
	"errors"
	"net/http"
	"strings"
)

// Edit describes the header that a service gets in place of a request's own. Copying the
// header of every request into another map would cost more than sending it.
type Edit struct {
	Omit func(name string) bool // reports the headers to leave out; nil keeps all
	Add  []Field                // headers to add, whose names Omit reports
}

// Field is one line of a header. Name is in canonical form.
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
		sent["User-Agent"] = nil // Otherwise net/http sends its own.
	}
	return sent
}

// value returns the value of the header of that name that a service gets in place of h's.
func (e Edit) value(h http.Header, name string) string {
	for _, field := range e.Add {
		if field.Name == name {
			return field.Value
		}
	}
	if e.Omit != nil && e.Omit(name) {
		return ""
	}
	return h.Get(name)
}

var errNewline = errors.New("line break in a part of the request")

func hasBody(req *http.Request) bool { return req.Body != nil && req.Body != http.NoBody }

// streams reports whether the body of req is read from its client while it is sent.
func streams(req *http.Request) bool { return hasBody(req) && req.GetBody == nil }

// rewind lets req be sent again. The body of one that streams must not have been read.
func rewind(req *http.Request) error {
	if req.GetBody == nil {
		return nil
	}
	body, err := req.GetBody()
	req.Body = body
	return err
}

// writeRequest sends req. net/http writes a request with a body, because it has more to
// get wrong; edit must be empty then.
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
	// After an invalid part the buffer holds the beginning of a request, so the connection
	// cannot be used any more.
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

// writeLine reports whether the parts are a single line. Write errors are reported by
// Flush.
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
