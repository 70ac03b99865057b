package api_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

const (
	hostileTimeout = 10 * time.Second
	okHead         = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
	okAnswer       = okHead + "Content-Length: 2\r\n\r\nok"
	// stray is what must never reach the next client.
	stray    = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nSECRET"
	chunkEnd = "0\r\n\r\n"
)

// write answers with text and leaves the connection open.
func write(text string) script {
	return func(_ *hostileService, c net.Conn) bool {
		_, err := io.WriteString(c, text)
		return err == nil
	}
}

// writeClose answers with text and closes the connection.
func writeClose(text string) script {
	return func(_ *hostileService, c net.Conn) bool {
		_, _ = io.WriteString(c, text) // The gateway may have seen enough.
		return false
	}
}

// writeLater answers with text and, when the client has its answer, writes more.
func writeLater(text, more string) script {
	return func(u *hostileService, c net.Conn) bool {
		if _, err := io.WriteString(c, text); err != nil {
			return false
		}
		<-u.answered
		_, err := io.WriteString(c, more) // The gateway may have closed the connection.
		return err == nil
	}
}

// writeStall answers with text and then neither writes nor reads until the client has its
// answer.
func writeStall(text string) script {
	return func(u *hostileService, c net.Conn) bool {
		_, _ = io.WriteString(c, text)
		<-u.answered
		return false
	}
}

// reset answers with text and resets the connection.
func reset(text string) script {
	return func(_ *hostileService, c net.Conn) bool {
		_, _ = io.WriteString(c, text)
		_ = c.(*net.TCPConn).SetLinger(0)
		return false
	}
}

// drip writes text and then piece after piece, until the gateway closes the connection.
func drip(text, piece string, every time.Duration) script {
	return func(_ *hostileService, c net.Conn) bool {
		if _, err := io.WriteString(c, text); err != nil {
			return false
		}
		for {
			if _, err := io.WriteString(c, piece); err != nil {
				return false
			}
			time.Sleep(every)
		}
	}
}

// sequence runs scripts one after the other, as long as the connection is open.
func sequence(all ...script) script {
	return func(u *hostileService, c net.Conn) bool {
		for _, one := range all {
			if !one(u, c) {
				return false
			}
		}
		return true
	}
}

// want lists the acceptable results.
func want(results ...string) []string { return results }

// okOr502 is for what a strict parser rejects and a lenient one reads unambiguously.
var okOr502 = want("200 ok", "502")

func withHeader(lines string) script { return write(okHead + lines + "Content-Length: 2\r\n\r\nok") }

func withStatus(line string) script { return write(line + "\r\nContent-Length: 2\r\n\r\nok") }

var defaults = map[string]string{
	"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "X-Content-Type-Options": "nosniff", "Content-Type": "text/plain",
}

var megabyte = strings.Repeat("m", 1<<20)

var hostileCases = []hostileCase{
	// More than the answer.
	{name: "stray bytes with a 200", answer: write(okAnswer + "stray"), want: want("200 ok")},
	{name: "stray bytes after a 200", answer: writeLater(okAnswer, "stray"), want: want("200 ok")},
	{name: "a second answer with a 200", answer: write(okAnswer + stray), want: want("200 ok"), wantNone: "SECRET"},
	{name: "a second answer after a 200", answer: writeLater(okAnswer, stray), want: want("200 ok")},
	{name: "a second answer after a POST", method: "POST", body: "{}", answer: writeLater(okAnswer, stray), want: want("200 ok")},
	{name: "ten answers after a 200", answer: writeLater(okAnswer, strings.Repeat(stray, 10)), want: want("200 ok")},
	{name: "a line break after a 200", answer: writeLater(okAnswer, "\r\n"), want: want("200 ok")},
	{name: "a 408 after a 200", answer: sequence(writeLater(okAnswer, "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"), writeClose("")), want: want("200 ok")},
	{name: "a 103 after a 200", answer: writeLater(okAnswer, "HTTP/1.1 103 Early Hints\r\nSet-Cookie: a=b\r\n\r\n"), want: want("200 ok")},
	{name: "an answer with a 200 of no length", answer: write(okHead + "Content-Length: 0\r\n\r\n" + stray), want: want("200 "), wantNone: "SECRET"},
	{name: "an answer after a 200 of no length", answer: writeLater(okHead+"Content-Length: 0\r\n\r\n", stray), want: want("200 ")},
	{name: "an answer with the final chunk", answer: write(okHead + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + chunkEnd + stray), want: want("200 ok"), wantNone: "SECRET"},
	{name: "an answer after the final chunk", answer: writeLater(okHead+"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"+chunkEnd, stray), want: want("200 ok")},
	{name: "an answer with a HEAD", method: "HEAD", answer: write(okHead + "Content-Length: 6\r\n\r\n" + stray), want: want("200 "), wantNone: "SECRET"},
	{name: "an answer after a HEAD", method: "HEAD", answer: writeLater(okHead+"Content-Length: 6\r\n\r\n", stray), want: want("200 ")},
	{name: "a body with a HEAD", method: "HEAD", answer: write(okAnswer), want: want("200 ")},
	{name: "a body after a HEAD", method: "HEAD", answer: writeLater(okHead+"Content-Length: 2\r\n\r\n", "ok"), want: want("200 ")},
	{name: "an answer with a 204", answer: write("HTTP/1.1 204 No Content\r\n\r\n" + stray), want: want("204 "), wantNone: "SECRET"},
	{name: "an answer after a 204", answer: writeLater("HTTP/1.1 204 No Content\r\n\r\n", stray), want: want("204 ")},
	{name: "a body with a 204", answer: write("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok"), want: want("204 ", "502")},
	{name: "chunks with a 204", answer: write("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + chunkEnd), want: want("204 ", "502")},
	{name: "an answer with a 304", answer: write("HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n" + stray), want: want("304 "), wantNone: "SECRET"},
	{name: "an answer after a 304", answer: writeLater("HTTP/1.1 304 Not Modified\r\n\r\n", stray), want: want("304 ")},
	{name: "a body with a 304", answer: write("HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok"), want: want("304 ")},
	{name: "an answer with another's request id", answer: withHeader("X-Request-Id: before\r\n"), want: want("502")},
	{name: "an empty answer with another's request id", answer: write(okHead + "X-Request-Id: before\r\nContent-Length: 0\r\n\r\n"), want: want("502")},
	{name: "two request ids", answer: withHeader("X-Request-Id: attack\r\nX-Request-Id: before\r\n"), want: want("502")},

	// Lengths and encodings.
	{name: "equal lengths", answer: write(okHead + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok"), want: okOr502},
	{name: "different lengths", answer: write(okHead + "Content-Length: 2\r\nContent-Length: 60\r\n\r\nok" + stray), want: want("502")},
	{name: "a list of lengths", answer: write(okHead + "Content-Length: 2, 2\r\n\r\nok"), want: okOr502},
	{name: "a length with a sign", answer: write(okHead + "Content-Length: +2\r\n\r\nok"), want: okOr502},
	{name: "a negative length", answer: write(okHead + "Content-Length: -2\r\n\r\nok"), want: want("502")},
	{name: "a length that overflows", answer: write(okHead + "Content-Length: 18446744073709551618\r\n\r\nok"), want: want("502")},
	{name: "a huge length", answer: writeClose(okHead + "Content-Length: 9223372036854775807\r\n\r\nok"), want: want("cut", "502")},
	{name: "a hexadecimal length", answer: write(okHead + "Content-Length: 0x2\r\n\r\nok"), want: want("502")},
	{name: "an empty length", answer: writeClose(okHead + "Content-Length: \r\n\r\nok"), want: okOr502},
	{name: "a length too short", answer: write(okHead + "Content-Length: 2\r\n\r\nok" + stray), want: want("200 ok"), wantNone: "SECRET"},
	{name: "a length too long", answer: writeStall(okHead + "Content-Length: 20\r\n\r\nok"), want: want("cut", "502", "504")},
	{name: "length and chunks", answer: write(okHead + "Content-Length: 20\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + chunkEnd), want: okOr502},
	{name: "chunks and a length that reaches further", answer: write(okHead + "Transfer-Encoding: chunked\r\nContent-Length: 200\r\n\r\n2\r\nok\r\n" + chunkEnd + stray), want: okOr502, wantNone: "SECRET"},
	{name: "chunked twice", answer: write(okHead + "Transfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n" + chunkEnd), want: want("502")},
	{name: "chunked and identity", answer: write(okHead + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n2\r\nok\r\n" + chunkEnd), want: want("502")},
	{name: "an unknown encoding", answer: write(okHead + "Transfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n" + chunkEnd), want: want("502")},
	{name: "chunked with a vertical tab", answer: write(okHead + "Transfer-Encoding: \x0bchunked\r\n\r\n2\r\nok\r\n" + chunkEnd), want: want("502")},
	{name: "encoding with a space before the colon", answer: write(okHead + "Transfer-Encoding : chunked\r\nContent-Length: 2\r\n\r\nok"), want: want("502")},
	{name: "chunk extensions", answer: write(okHead + "Transfer-Encoding: chunked\r\n\r\n2;a=b;c=\"d\"\r\nok\r\n0;e\r\n\r\n"), want: okOr502},
	{name: "an endless chunk extension", answer: drip(okHead+"Transfer-Encoding: chunked\r\n\r\n2;", strings.Repeat("a", 1000), time.Millisecond), want: want("cut", "502")},
	{name: "a chunk size that overflows", answer: write(okHead + "Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\nok\r\n" + chunkEnd), want: want("cut", "502")},
	{name: "a negative chunk size", answer: write(okHead + "Transfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n" + chunkEnd), want: want("cut", "502")},
	{name: "a chunk size that is none", answer: write(okHead + "Transfer-Encoding: chunked\r\n\r\nxyz\r\nok\r\n" + chunkEnd), want: want("cut", "502")},
	{name: "a chunk longer than its size", answer: write(okHead + "Transfer-Encoding: chunked\r\n\r\n1\r\nok\r\n" + chunkEnd), want: want("cut", "502")},
	{name: "no line break after the final chunk", answer: writeClose(okHead + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"), want: want("cut", "502", "200 ok")},
	{name: "no final chunk", answer: writeClose(okHead + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"), want: want("cut", "502", "504")},
	{name: "no end", answer: writeStall(okHead + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"), want: want("cut", "502", "504")},

	// The status line.
	{name: "status 000", answer: withStatus("HTTP/1.1 000 Zero"), want: want("502")},
	{name: "status 099", answer: withStatus("HTTP/1.1 099 Low"), want: want("502")},
	{name: "status 199", answer: write("HTTP/1.1 199 Odd\r\n\r\n" + okAnswer), want: okOr502},
	{name: "status 600", answer: withStatus("HTTP/1.1 600 High"), want: want("502")},
	{name: "status 999", answer: withStatus("HTTP/1.1 999 Higher"), want: want("502")},
	{name: "status 1000", answer: withStatus("HTTP/1.1 1000 Long"), want: want("502")},
	{name: "status -20", answer: withStatus("HTTP/1.1 -20 Negative"), want: want("502")},
	{name: "status +20", answer: withStatus("HTTP/1.1 +20 Signed"), want: want("502")},
	{name: "a status that is text", answer: withStatus("HTTP/1.1 two OK"), want: want("502")},
	{name: "no status", answer: write("HTTP/1.1\r\n\r\n"), want: want("502")},
	{name: "no reason", answer: write("HTTP/1.1 200\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"), want: okOr502},
	{name: "100 without end", answer: drip("", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 100), time.Millisecond), want: want("502", "504")},
	{name: "103 and nothing more", answer: writeStall("HTTP/1.1 103 Early Hints\r\n\r\n"), want: want("502", "504")},
	{name: "103 with the gateway's headers", wantNone: "a=b", answer: write("HTTP/1.1 103 Early Hints\r\nContent-Security-Policy: default-src *\r\nSet-Cookie: a=b\r\nX-Request-Id: x\r\nConnection: X-Content-Type-Options\r\n\r\n" + okAnswer), want: want("200 ok"), header: defaults},
	{name: "103 with a length", answer: write("HTTP/1.1 103 Early Hints\r\nContent-Length: 100\r\n\r\n" + okAnswer), want: okOr502},
	{name: "101 unasked", answer: write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + stray), want: want("502"), wantNone: "SECRET"},
	{name: "an upgrade in a 200", answer: withHeader("Connection: Upgrade\r\nUpgrade: websocket\r\n"), want: want("200 ok"), header: map[string]string{"Upgrade": ""}},
	{name: "HTTP/0.9", answer: writeClose("ok"), want: want("502")},
	{name: "HTTP/1.0", answer: writeClose("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nok"), want: want("200 ok")},
	{name: "HTTP/1.0 left open", answer: writeLater("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok", stray), want: want("200 ok")},
	{name: "HTTP/1.0 with keep-alive", answer: writeLater("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", stray), want: want("200 ok")},
	{name: "HTTP/1.0 with chunks", answer: writeClose("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + chunkEnd), want: want("200 2\r\nok\r\n0\r\n\r\n", "502")},
	{name: "HTTP/2 in the status line", answer: withStatus("HTTP/2.0 200 OK"), want: want("502")},
	{name: "HTTP/9.9 in the status line", answer: withStatus("HTTP/9.9 200 OK"), want: want("502")},
	{name: "the preface of HTTP/2", answer: write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), want: want("502")},
	{name: "a TLS alert", answer: writeClose("\x15\x03\x01\x00\x02\x02\x0a"), want: want("502")},
	{name: "another protocol", answer: writeClose("220 mail.example.com ESMTP\r\n"), want: want("502")},

	// Headers.
	{name: "a folded header", answer: withHeader("X-Folded: a\r\n b\r\n"), want: okOr502},
	{name: "a folded first header", answer: write("HTTP/1.1 200 OK\r\n X-Folded: a\r\nContent-Length: 2\r\n\r\nok"), want: want("502")},
	{name: "a NUL in a header", answer: withHeader("X-Nul: a\x00b\r\n"), want: okOr502, wantNone: "\x00"},
	{name: "a bare CR in a header", answer: withHeader("X-Cr: a\rX-Injected: b\r\n"), want: okOr502, wantNone: "\rX-Injected"},
	{name: "a bare LF in a header", answer: withHeader("X-Lf: a\nX-Injected: b\r\n"), want: okOr502, wantNone: "a\nX-Injected"},
	{name: "a header without a colon", answer: withHeader("nonsense\r\n"), want: want("502")},
	{name: "a header without a name", answer: withHeader(": value\r\n"), want: want("502")},
	{name: "a header name with a space", answer: withHeader("X Space: a\r\n"), want: want("502")},
	{name: "a header of 100 KB", answer: write(okHead + "X-Long: " + strings.Repeat("x", 100_000) + "\r\nContent-Length: 2\r\n\r\nok"), want: want("502")},
	{name: "100 KB of headers", answer: withHeader(strings.Repeat("X-Many: "+strings.Repeat("x", 90)+"\r\n", 1000)), want: want("502")},
	{name: "ten thousand headers", answer: withHeader(manyHeaders(10_000)), want: okOr502},
	{name: "a header without end", answer: drip(okHead, "X-More: x\r\n", time.Millisecond), want: want("502", "504")},
	{name: "the gateway's headers in Connection", answer: withHeader("Connection: Content-Security-Policy, X-Request-Id, X-Content-Type-Options, Referrer-Policy, Cache-Control, Content-Type, keep-alive\r\n"), want: want("200 ok"), header: defaults},
	{name: "the service's headers in Connection", header: map[string]string{"Content-Type": "text/plain", "Cache-Control": "no-store", "Content-Disposition": "attachment", "X-Hop": ""}, answer: withHeader("Connection: Content-Type\r\nConnection: cache-control, content-disposition,,x-hop\r\nCache-Control: no-store\r\nContent-Disposition: attachment\r\nX-Hop: 1\r\n"), want: want("200 ok")},
	{name: "empty security headers", answer: withHeader("Content-Security-Policy:\r\nX-Content-Type-Options:\r\nReferrer-Policy:\r\nCache-Control:\r\n"), want: want("200 ok"), header: defaults},
	{name: "sniffing allowed", answer: withHeader("X-Content-Type-Options: sniff\r\nX-Content-Type-Options: \r\nStrict-Transport-Security: max-age=0\r\nServer: x\r\nX-Powered-By: x\r\n"), want: want("200 ok"), header: map[string]string{"X-Content-Type-Options": "nosniff", "Strict-Transport-Security": "", "Server": "", "X-Powered-By": ""}},
	{name: "hop-by-hop headers", answer: withHeader("Keep-Alive: timeout=1, max=1\r\nProxy-Authenticate: Basic\r\nProxy-Connection: close\r\nTE: trailers\r\n"), want: want("200 ok"), header: map[string]string{"Keep-Alive": "", "Proxy-Authenticate": "", "Proxy-Connection": "", "Te": ""}},
	{name: "trailers", answer: write(okHead + "Transfer-Encoding: chunked\r\nTrailer: Content-Security-Policy, X-Request-Id, Set-Cookie\r\n\r\n2\r\nok\r\n0\r\nContent-Security-Policy: default-src *\r\nX-Request-Id: x\r\nSet-Cookie: a=b\r\n\r\n"), want: want("200 ok"), wantNone: "a=b", header: defaults},
	{name: "unannounced trailers", answer: write(okHead + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nSet-Cookie: a=b\r\nContent-Length: 1\r\n\r\n"), want: want("200 ok", "cut"), wantNone: "a=b"},
	{name: "trailers that must not be announced", answer: write(okHead + "Transfer-Encoding: chunked\r\nTrailer: Content-Length, Transfer-Encoding\r\n\r\n2\r\nok\r\n" + chunkEnd), want: okOr502},
	{name: "trailers without end", answer: drip(okHead+"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", "X-More: x\r\n", time.Millisecond), want: want("cut", "502")},

	// Time and connections.
	{name: "closed at once", answer: writeClose(""), want: want("502")},
	{name: "closed at once after a POST", method: "POST", body: "{}", answer: writeClose(""), want: want("502")},
	{name: "closed in the status line", answer: writeClose("HTTP/1.1 2"), want: want("502")},
	{name: "closed in the header", answer: writeClose(okHead + "X-Half: "), want: want("502")},
	{name: "closed in the body", answer: writeClose(okHead + "Content-Length: 20\r\n\r\nok"), want: want("cut", "502", "504")},
	{name: "closed in a chunk", answer: writeClose(okHead + "Transfer-Encoding: chunked\r\n\r\n20\r\nok"), want: want("cut", "502", "504")},
	{name: "closed after the answer", answer: writeClose(okAnswer), want: want("200 ok")},
	{name: "reset at once", answer: reset(""), want: want("502")},
	{name: "reset after the header", answer: reset(okHead + "Content-Length: 20\r\n\r\n"), want: want("cut", "502")},
	{name: "no answer", answer: writeStall(""), want: want("504")},
	{name: "half a header", answer: writeStall(okHead), want: want("504")},
	{name: "a header that drips", answer: drip("HTTP/1.1 200 OK\r\nX-Slow: ", "x", 10*time.Millisecond), want: want("504")},
	{name: "a body that stops", answer: writeStall(okHead + "Content-Length: 20\r\n\r\nok"), want: want("cut", "502", "504")},
	{name: "a body that is reset", answer: reset(okHead + "Content-Length: 2000000\r\n\r\n" + megabyte), want: want("cut")},

	// While the request is sent.
	{name: "reset while a POST is sent", method: "POST", body: strings.Repeat("x", 60_000), unread: true, answer: reset(""), want: want("502")},
	{name: "answered while a POST is sent", method: "POST", body: strings.Repeat("x", 60_000), unread: true, answer: writeClose(okAnswer), want: okOr502},
	{name: "a body streamed and answered", method: "PUT", body: megabyte, answer: writeLater(okAnswer, stray), want: want("200 ok")},
	{name: "a streamed body that is never read", method: "PUT", body: strings.Repeat(megabyte, 5), unread: true, answer: writeStall(""), want: want("502", "504")},
	{name: "reset while a body is streamed", method: "PUT", body: strings.Repeat(megabyte, 5), unread: true, answer: reset(""), want: want("502")},
	{name: "closed while a body is streamed", method: "PUT", body: strings.Repeat(megabyte, 5), unread: true, answer: writeClose(""), want: want("502")},
	{name: "answered while a body is streamed", method: "PUT", body: strings.Repeat(megabyte, 5), unread: true, answer: writeStall(okAnswer), want: okOr502},
	{name: "two answers while a body is streamed", method: "PUT", body: strings.Repeat(megabyte, 5), unread: true, answer: writeStall(okAnswer + stray), want: okOr502, wantNone: "SECRET"},
	{name: "status 000 while a body is streamed", method: "PUT", body: strings.Repeat(megabyte, 5), unread: true, answer: writeStall("HTTP/1.1 000 Zero\r\n\r\n"), want: want("502")},
	{name: "100 while a body is streamed", method: "PUT", body: megabyte, answer: write("HTTP/1.1 100 Continue\r\n\r\n" + okAnswer), want: want("200 ok")},
}

func manyHeaders(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "X%d: a\r\n", i)
	}
	return b.String()
}
