package api_test

import (
	"bytes"
	"fmt"
	"image/color"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/user-service/internal/picture"
	"github.com/headgate/headgate/services/user-service/internal/picture/picturetest"
)

type part struct{ name, file, kind, body string }

// form returns a body of multipart/form-data and its type.
func form(parts ...part) (body, kind string) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, p := range parts {
		h := textproto.MIMEHeader{"Content-Disposition": {fmt.Sprintf(`form-data; name=%q; filename=%q`, p.name, p.file)}}
		if p.kind != "" {
			h.Set("Content-Type", p.kind)
		}
		to, _ := w.CreatePart(h) // It writes to memory.
		_, _ = io.WriteString(to, p.body)
	}
	_ = w.Close()
	return b.String(), w.FormDataContentType()
}

// TestAvatarForms: a form with one image, of a declared type or of none.
func TestAvatarForms(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	for _, kind := range []string{"image/jpeg", "image/jpg", "application/octet-stream", ""} {
		body, contentType := form(part{"avatar", "../../etc/passwd.html", kind, photo(red)})
		if a := s.upload(newUser(), body, "Content-Type", contentType); a.status != 200 {
			t.Errorf("%q = %d %s %v", kind, a.status, a.Code, a.Errors)
		}
	}
	for name, tc := range map[string]struct {
		parts  []part
		status int
		code   string
		field  string
	}{
		"no part":        {nil, 400, "validation_failed", "avatar required"},
		"another field":  {[]part{{"file", "a.jpg", "image/jpeg", photo(red)}}, 400, "validation_failed", "file unknown_field"},
		"one field more": {[]part{{"avatar", "a.jpg", "image/jpeg", photo(red)}, {"role", "", "", "admin"}}, 400, "validation_failed", "role unknown_field"},
		"two images":     {[]part{{"avatar", "a.jpg", "image/jpeg", photo(red)}, {"avatar", "b.jpg", "image/jpeg", photo(blue)}}, 400, "validation_failed", "avatar duplicate_field"},
		"an empty file":  {[]part{{"avatar", "a.jpg", "image/jpeg", ""}}, 400, "invalid_image", ""},
		"another type":   {[]part{{"avatar", "a.svg", "image/svg+xml", "<svg/>"}}, 415, "unsupported_image_type", ""},
		"a wrong type":   {[]part{{"avatar", "a.png", "image/png", photo(red)}}, 415, "unsupported_image_type", ""},
		"a page":         {[]part{{"avatar", "a.html", "", "<script>"}}, 415, "unsupported_image_type", ""},
	} {
		body, contentType := form(tc.parts...)
		a := s.upload(newUser(), body, "Content-Type", contentType)
		field := ""
		if len(a.Errors) > 0 {
			field = a.Errors[0].Field + " " + a.Errors[0].Code
		}
		if a.status != tc.status || a.Code != tc.code || field != tc.field {
			t.Errorf("%s = %d %s %s, want %d %s %s", name, a.status, a.Code, field, tc.status, tc.code, tc.field)
		}
	}
	good, contentType := form(part{"avatar", "a.jpg", "image/jpeg", photo(red)})
	for name, tc := range map[string][2]string{
		"cut off":         {good[:len(good)-30], contentType},
		"no boundary":     {good, "multipart/form-data"},
		"other boundary":  {good, "multipart/form-data; boundary=other"},
		"no form":         {"hello", contentType},
		"huge headers":    {strings.Replace(good, "Content-Type", strings.Repeat("X: y\r\n", 20000)+"Content-Type", 1), contentType},
		"nothing":         {"", contentType},
		"mixed multipart": {good, strings.Replace(contentType, "form-data", "mixed", 1)},
	} {
		if a := s.upload(newUser(), tc[0], "Content-Type", tc[1]); a.status < 400 || a.status > 415 {
			t.Errorf("%s = %d %s", name, a.status, a.Code)
		}
	}
	s.wantStored(4 * 3)
}

// TestSEC148UploadsAreRefused: the cases of package picture, and those of the request, with their
// status and code. None is a fault of the service.
func TestSEC148UploadsAreRefused(t *testing.T) {
	t.Parallel()
	s, me := newService(t, testkit.RedisURL(t)), newUser()
	m := picturetest.Plain(80, 80, red)
	for name, tc := range map[string]struct {
		body   string
		kind   string
		status int
		code   string
	}{
		"no type":         {photo(red), "", 415, "unsupported_image_type"},
		"JSON":            {"{}", "application/json", 415, "unsupported_image_type"},
		"SVG":             {"<svg/>", "image/svg+xml", 415, "unsupported_image_type"},
		"no media type":   {photo(red), "image", 415, "unsupported_image_type"},
		"another format":  {string(picturetest.PNG(m)), "image/jpeg", 415, "unsupported_image_type"},
		"animated WebP":   {string(picturetest.AnimatedWebP()), "image/webp", 415, "animated_image_not_supported"},
		"bomb":            {string(picturetest.PNGOf(picturetest.PNG(m), 60_000, 60_000)), "image/png", 400, "image_dimensions_too_large"},
		"GIF bomb":        {string(picturetest.GIFOf(picturetest.GIF(m), 60_000, 60_000)), "image/gif", 400, "image_dimensions_too_large"},
		"truncated":       {photo(red)[:500], "image/jpeg", 400, "invalid_image"},
		"empty":           {"", "image/jpeg", 400, "invalid_image"},
		"larger than 5 M": {photo(red) + strings.Repeat("x", picture.MaxBytes), "image/jpeg", 413, "body_too_large"},
	} {
		if a := s.upload(me, tc.body, "Content-Type", tc.kind); a.status != tc.status || a.Code != tc.code {
			t.Errorf("%s = %d %s, want %d %s", name, a.status, a.Code, tc.status, tc.code)
		}
	}
	if a := s.upload(me, photo(red), "Content-Encoding", "gzip"); a.status != 415 {
		t.Errorf("compressed = %d", a.status)
	}
	if a := s.upload(token.Identity{}, photo(red)); a.status != 401 {
		t.Errorf("without a token = %d", a.status)
	}
	s.wantStored(0)
}

// TestSEC148CutOffUploads: a body that is shorter than declared, and an endless one, end in a
// response, and nothing is stored.
func TestSEC148CutOffUploads(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	head := "PUT /api/v1/user/me/avatar HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nAuthorization: Bearer " + s.issuer.Token(newUser()) + "\r\n"
	for name, tc := range map[string]struct{ request, want string }{
		"shorter than declared": {head + "Content-Length: 100000\r\n\r\n" + photo(red), "400"},
		"cut off in a chunk":    {head + "Transfer-Encoding: chunked\r\n\r\nffff\r\n" + photo(red)[:100], "400"},
		"no chunk":              {head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", "400"},
		"declared as endless":   {head + "Content-Length: 9999999999\r\n\r\n", "413"},
	} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, tc.request); err != nil {
			t.Fatal(err)
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite() // The response says what happened.
		}
		response, _ := io.ReadAll(conn)
		conn.Close()
		if !strings.HasPrefix(string(response), "HTTP/1.1 "+tc.want) {
			t.Errorf("%s = %.200s", name, response)
		}
	}
	s.wantStored(0)
}

// TestSEC148DecodingIsBounded: of many uploads at the same time, those beyond the memory wait and
// then succeed or get 503 with Retry-After; nothing fails.
func TestSEC148DecodingIsBounded(t *testing.T) {
	t.Parallel()
	s := newService(t, testkit.RedisURL(t))
	s.avatars.MemoryWait = 5 * time.Second
	var wait sync.WaitGroup
	for range 12 {
		wait.Go(func() {
			a := s.upload(newUser(), string(picturetest.GreyJPEG(4096, 4096)))
			switch {
			case a.status == 200:
			case a.status == 503 && a.Code == "avatar_busy" && a.header.Get("Retry-After") != "":
			default:
				t.Errorf("upload = %d %s", a.status, a.Code)
			}
		})
	}
	wait.Wait()
}

// TestConcurrentUploads: of many uploads of one user, one wins, and it has all its pictures.
func TestConcurrentUploads(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, s *service) {
		t.Helper()
		me := newUser()
		var wait sync.WaitGroup
		for i := range 12 {
			wait.Go(func() {
				switch i % 4 {
				case 3:
					s.want(s.do(me, "DELETE", "/me/avatar", ""), 200)
				default:
					s.want(s.upload(me, photo([]color.Color{red, blue, red}[i%4])), 200)
				}
			})
		}
		wait.Wait()
		s.want(s.upload(me, photo(red)), 200)
		if res, _ := s.fetch(s.file(s.do(me, "GET", "/me", ""))); res.StatusCode != http.StatusOK {
			t.Errorf("picture = %d", res.StatusCode)
		}
		s.wantStored(3)
		if n := s.registered(); n != 1 {
			t.Errorf("%d names are registered", n)
		}
	})
}
