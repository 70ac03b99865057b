package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image/color"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/user-service/internal/api"
	"github.com/headgate/headgate/services/user-service/internal/picture"
	"github.com/headgate/headgate/services/user-service/internal/picture/picturetest"
	"github.com/headgate/headgate/services/user-service/internal/profile"
)

const avatarMemory = 320 << 20

// onBothStores runs a test on a service that keeps its avatars in a folder, and on one that keeps
// them on a server with the API of S3.
func onBothStores(t *testing.T, test func(t *testing.T, s *service)) {
	t.Helper()
	t.Run("folder", func(t *testing.T) {
		t.Parallel()
		test(t, newService(t, testkit.RedisURL(t)))
	})
	t.Run("S3", func(t *testing.T) {
		t.Parallel()
		test(t, newServiceOn(t, testkit.RedisURL(t), testkit.StartS3(t).URL))
	})
}

var red, blue = color.NRGBA{255, 0, 0, 255}, color.NRGBA{0, 0, 255, 255}

func photo(c color.Color) string { return string(picturetest.JPEG(picturetest.Plain(600, 600, c))) }

func (s *service) upload(caller token.Identity, image string, header ...string) answer {
	s.t.Helper()
	return s.do(caller, "PUT", "/me/avatar", image, append([]string{"Content-Type", "image/jpeg"}, header...)...)
}

// uploadPatiently retries while the service is busy, as it is when the machine is.
func (s *service) uploadPatiently(caller token.Identity, image string) {
	s.t.Helper()
	testkit.Eventually(s.t, func() error {
		if a := s.upload(caller, image); a.status != 200 {
			if a.Code != "avatar_busy" {
				s.t.Errorf("upload = %d %s", a.status, a.Code)
			}
			return fmt.Errorf("upload = %d %s", a.status, a.Code)
		}
		return nil
	})
}

// fetch gets a picture by the last segment of its URL.
func (s *service) fetch(file string, header ...string) (*http.Response, []byte) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, s.URL+api.AvatarPath+"/"+file, http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res, data
}

// file returns the last segment of the avatar's URL in an answer.
func (s *service) file(a answer) string {
	s.t.Helper()
	file, ok := strings.CutPrefix(a.profile(s.t).AvatarURL, assets+"/")
	if !ok || strings.Contains(string(a.Data), `"avatar":`) {
		s.t.Fatalf("profile = %s", a.Data)
	}
	return file
}

// wantStored checks how many pictures there are.
func (s *service) wantStored(n int) {
	s.t.Helper()
	if keys := s.stored(); len(keys) != n {
		s.t.Errorf("%d pictures are stored, want %d: %s", len(keys), n, keys)
	}
}

func (s *service) stored() []string {
	s.t.Helper()
	var all []string
	err := s.blobs.List(s.t.Context(), time.Now().Add(time.Hour), func(keys []string) error { all = append(all, keys...); return nil })
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

// registered returns how many names are in the register.
func (s *service) registered() (n int) {
	s.t.Helper()
	if err := s.db.QueryRow(s.t.Context(), `SELECT count(*) FROM avatars`).Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// TestAvatar: set, read in each size, replace, remove; on both stores.
func TestAvatar(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, s *service) {
		t.Helper()
		me := newUser()
		set := s.want(s.upload(me, photo(red)), 200)
		first := s.file(set)
		if got := s.want(s.do(me, "GET", "/me", ""), 200); s.file(got) != first || got.header.Get("ETag") != set.header.Get("ETag") {
			t.Errorf("GET /me = %s", got.Data)
		}
		if cached := s.want(s.do(me, "GET", "/me", ""), 200); s.file(cached) != first || cached.header.Get("X-Cache") != "HIT" {
			t.Errorf("cached = %s", cached.Data)
		}
		listed := s.want(s.do(token.Identity{Role: token.RoleAdmin}, "GET", "/", ""), 200)
		if !strings.Contains(string(listed.Data), first) || strings.Contains(string(listed.Data), `"avatar":`) {
			t.Errorf("list = %s", listed.Data)
		}
		for _, size := range picture.Sizes {
			file := strings.Replace(first, "-256.", fmt.Sprintf("-%d.", size), 1)
			if res, data := s.fetch(file); res.StatusCode != http.StatusOK || !bytes.HasPrefix(data, []byte("\xff\xd8\xff")) {
				t.Errorf("%s = %d", file, res.StatusCode)
			}
		}
		again := s.want(s.upload(me, photo(red)), 200)
		if s.file(again) != first || again.header.Get("ETag") != set.header.Get("ETag") {
			t.Errorf("the same image made %s of %s", again.Data, set.Data)
		}
		s.wantStored(3)
		second := s.file(s.want(s.upload(me, photo(blue)), 200))
		if res, _ := s.fetch(first); second == first || res.StatusCode != http.StatusNotFound {
			t.Errorf("the old picture = %d", res.StatusCode)
		}
		s.wantStored(3)
		removed := s.want(s.do(me, "DELETE", "/me/avatar", ""), 200)
		if p := removed.profile(t); p.AvatarURL != "" {
			t.Errorf("after DELETE: %s", removed.Data)
		}
		if twice := s.want(s.do(me, "DELETE", "/me/avatar", ""), 200); twice.header.Get("ETag") != removed.header.Get("ETag") {
			t.Errorf("the second DELETE made version %s", twice.header.Get("ETag"))
		}
		s.wantStored(0)
		if n := s.registered(); n != 0 {
			t.Errorf("%d names are registered", n)
		}
	})
}

// TestAvatarInExport: the export of a user has the URL that the profile has.
func TestAvatarInExport(t *testing.T) {
	t.Parallel()
	s, me := newService(t, testkit.RedisURL(t)), newUser()
	file := s.file(s.want(s.upload(me, photo(red)), 200))
	res, data := s.download("/me/export", s.issuer.Token(me))
	if res.StatusCode != http.StatusOK || !bytes.Contains(data, []byte(`"avatarUrl":"`+assets+"/"+file+`"`)) || bytes.Contains(data, []byte(`"avatar":`)) {
		t.Errorf("export = %s %s", res.Status, data)
	}
}

// TestAvatarEvents: each change is recorded with its field and version, with no event for the
// same image.
func TestAvatarEvents(t *testing.T) {
	t.Parallel()
	s, me := newService(t, testkit.RedisURL(t)), newUser()
	s.want(s.upload(me, photo(red)), 200)
	s.want(s.upload(me, photo(red)), 200)
	s.want(s.do(me, "DELETE", "/me/avatar", ""), 200)
	rows, err := s.db.Query(t.Context(), `SELECT payload->'data' FROM outbox WHERE topic = 'user-events' ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var got []string
	for rows.Next() {
		var data json.RawMessage
		if err := rows.Scan(&data); err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.Join(strings.Fields(string(data)), ""))
	}
	want := []string{`{"fields":["avatarUrl"],"version":2}`, `{"fields":["avatarUrl"],"version":3}`}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("events = %s, want %s", got, want)
	}
}

// TestAvatarIfMatch: the condition is the one of PATCH, and a refused image leaves nothing behind.
func TestAvatarIfMatch(t *testing.T) {
	t.Parallel()
	s, me := newService(t, testkit.RedisURL(t)), newUser()
	tag := s.want(s.do(me, "GET", "/me", ""), 200).header.Get("ETag")
	for _, wrong := range []string{`"99"`, "W/" + tag} {
		if a := s.upload(me, photo(red), "If-Match", wrong); a.status != 412 || a.Code != "precondition_failed" {
			t.Errorf("If-Match: %s = %d %s", wrong, a.status, a.Code)
		}
	}
	s.wantStored(0)
	if n := s.registered(); n != 0 {
		t.Errorf("%d names are registered", n)
	}
	set := s.want(s.upload(me, photo(red), "If-Match", `"7", `+tag), 200)
	if a := s.do(me, "DELETE", "/me/avatar", "", "If-Match", tag); a.status != 412 {
		t.Errorf("DELETE with an old tag = %d", a.status)
	}
	s.wantStored(3)
	s.want(s.do(me, "DELETE", "/me/avatar", "", "If-Match", set.header.Get("ETag")), 200)
}

// TestSEC150AvatarsAreServedSafely: nothing in a picture can act, everybody can show it, and it is
// cached for good.
func TestSEC150AvatarsAreServedSafely(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, s *service) {
		t.Helper()
		file := s.file(s.want(s.upload(newUser(), photo(red)), 200))
		res, data := s.fetch(file)
		for name, want := range map[string]string{
			"Content-Type": "image/jpeg", "X-Content-Type-Options": "nosniff", "Content-Disposition": `inline; filename="avatar.jpg"`,
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox", "Cross-Origin-Resource-Policy": "cross-origin",
			"Cache-Control": "public, max-age=31536000, immutable", "ETag": `"` + file + `"`, "Content-Length": strconv.Itoa(len(data)),
		} {
			if got := res.Header.Get(name); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
		for _, tag := range []string{res.Header.Get("ETag"), "W/" + res.Header.Get("ETag"), `"x", ` + res.Header.Get("ETag"), "*"} {
			if res, data := s.fetch(file, "If-None-Match", tag); res.StatusCode != http.StatusNotModified || len(data) > 0 || res.Header.Get("Cache-Control") != profile.CacheControl {
				t.Errorf("If-None-Match: %s = %d", tag, res.StatusCode)
			}
		}
		if res, _ := s.fetch(file + "?v=3"); res.StatusCode != http.StatusOK {
			t.Errorf("with a parameter = %d", res.StatusCode)
		}
	})
}

// TestSEC150NamesOfAvatars: names cannot be guessed, are not shared by users with the same image,
// and reach nothing else.
func TestSEC150NamesOfAvatars(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	s := newServiceOn(t, testkit.RedisURL(t), "file://"+filepath.Join(folder, "blobs"))
	if err := os.WriteFile(filepath.Join(folder, "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	ann, bob := newUser(), newUser()
	one, two := s.file(s.want(s.upload(ann, photo(red)), 200)), s.file(s.want(s.upload(bob, photo(red)), 200))
	if one[:26] == two[:26] || one[26:52] == two[26:52] {
		t.Errorf("the names of two users are %s and %s", one, two)
	}
	s.want(s.do(ann, "DELETE", "/me/avatar", ""), 200)
	if third := s.file(s.want(s.upload(ann, photo(red)), 200)); third == one || third[:26] != one[:26] {
		t.Errorf("the name was %s, and is %s", one, third)
	}
	if res, _ := s.fetch(two); res.StatusCode != http.StatusOK {
		t.Errorf("Bob's picture = %d after Ann's was removed", res.StatusCode)
	}
	base, extension, _ := strings.Cut(two, "-256.")
	for _, file := range []string{
		"", "x", base, base + "-256", base + ".jpg", base + "-128.jpg", base + "-256.png", base + "-256.jpeg", strings.ToUpper(base) + "-256." + extension,
		base + "-256." + extension + "/", "../secret", "..%2fsecret", "%2e%2e%2fsecret", "..%5c..%5csecret", base[:2] + "/" + two, base[:2] + "%2f" + two,
		two + ".tmp", two + "%00", "." + two, strings.Repeat("a", 52) + "-256.jpg", strings.Repeat("a", 9000),
	} {
		if res, data := s.fetch(file); res.StatusCode != http.StatusNotFound || bytes.Contains(data, []byte("secret")) || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%.80s = %d, Cache-Control: %s", file, res.StatusCode, res.Header.Get("Cache-Control"))
		}
	}
}

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
					s.uploadPatiently(me, photo([]color.Color{red, blue, red}[i%4]))
				}
			})
		}
		wait.Wait()
		s.uploadPatiently(me, photo(red))
		if res, _ := s.fetch(s.file(s.do(me, "GET", "/me", ""))); res.StatusCode != http.StatusOK {
			t.Errorf("picture = %d", res.StatusCode)
		}
		s.wantStored(3)
		if n := s.registered(); n != 1 {
			t.Errorf("%d names are registered", n)
		}
	})
}

// TestSEC151ErasureDeletesPictures: the event of a deleted account deletes the pictures, also
// those of an upload that had died; while the storage is away, it is retried.
func TestSEC151ErasureDeletesPictures(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, s *service) {
		t.Helper()
		me, other := newUser(), newUser()
		file, others := s.file(s.want(s.upload(me, photo(red)), 200)), s.file(s.want(s.upload(other, photo(red)), 200))
		orphan := strings.Repeat("b", 52)
		if _, err := s.db.Exec(t.Context(), `INSERT INTO avatars (name, user_id, unused_since) VALUES ($1, $2, now())`, orphan+".jpg", me.UserID); err != nil {
			t.Fatal(err)
		}
		if err := s.blobs.Put(t.Context(), "bb/"+orphan+"-64.jpg", []byte("x")); err != nil {
			t.Fatal(err)
		}
		s.publish(me.UserID, time.Now(), event.UserDeleted{})
		s.wantAcknowledged()
		if res, _ := s.fetch(file); res.StatusCode != http.StatusNotFound {
			t.Errorf("the picture of a deleted account = %d", res.StatusCode)
		}
		if res, _ := s.fetch(others); res.StatusCode != http.StatusOK {
			t.Errorf("the picture of another account = %d", res.StatusCode)
		}
		s.wantStored(3)
		if n := s.registered(); n != 1 {
			t.Errorf("%d names are registered", n)
		}
		if a := s.upload(me, photo(blue)); a.status != 404 {
			t.Errorf("upload to a deleted account = %d %s", a.status, a.Code)
		}
		s.wantStored(3)
	})
}

// TestSEC151ErasureWaitsForTheStorage: while the storage is away, uploads get 503, and an erasure
// is retried until the pictures are gone.
func TestSEC151ErasureWaitsForTheStorage(t *testing.T) {
	t.Parallel()
	server := testkit.StartS3(t)
	s, me := newServiceOn(t, testkit.RedisURL(t), server.URL), newUser()
	file := s.file(s.want(s.upload(me, photo(red)), 200))
	server.Stop()
	if a := s.upload(me, photo(blue)); a.status != 503 || a.Code != "avatar_storage_unavailable" || a.header.Get("Retry-After") == "" {
		t.Errorf("upload without storage = %d %s", a.status, a.Code)
	}
	if res, _ := s.fetch(file); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("picture without storage = %d", res.StatusCode)
	}
	err := s.avatars.Deleted(t.Context(), testkit.NewEvent(t.Context(), me.UserID, event.UserDeleted{}))
	if !api.Unavailable(err) {
		t.Errorf("erasure without storage = %v, want it to be retried", err)
	}
	server.Restart()
	if err := s.avatars.Deleted(t.Context(), testkit.NewEvent(t.Context(), me.UserID, event.UserDeleted{})); err != nil {
		t.Errorf("erasure = %v", err)
	}
	s.wantStored(0)
}

// TestSEC151Sweep: what no profile has is deleted once it is an hour old, whether the register or
// only the storage has it. Other files are left alone.
func TestSEC151Sweep(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, s *service) {
		t.Helper()
		me := newUser()
		file := s.file(s.want(s.upload(me, photo(red)), 200))
		name := func(initial string) string { return strings.Repeat(initial, 52) }
		put := func(keys ...string) {
			for _, key := range keys {
				if err := s.blobs.Put(t.Context(), key, []byte("x")); err != nil {
					t.Fatal(err)
				}
			}
		}
		put("bb/"+name("b")+"-64.jpg", "bb/"+name("b")+"-512.jpg", "cc/"+name("c")+"-256.png", "dd/"+name("d")+"-64.jpg.18f3a.tmp", "notes.txt", "ee/"+name("e")+"-65.jpg")
		for initial, age := range map[string]string{"b": "2 hours", "f": "1 minute"} {
			if _, err := s.db.Exec(t.Context(), `INSERT INTO avatars (name, user_id, unused_since) VALUES ($1, $2, now() - $3::interval)`, name(initial)+".jpg", me.UserID, age); err != nil {
				t.Fatal(err)
			}
		}
		if swept, err := s.avatars.Sweep(t.Context()); err != nil || swept != (profile.Swept{Unused: 1}) {
			t.Errorf("sweep = %+v, %v", swept, err)
		}
		s.wantStored(3 + 4) // The other files are too young.
		later := s.sweepingAt(time.Now().Add(2 * time.Hour))
		if swept, err := later.Sweep(t.Context()); err != nil || swept != (profile.Swept{Unused: 1, Unlisted: 2}) {
			t.Errorf("sweep two hours later = %+v, %v", swept, err)
		}
		s.wantStored(3 + 2)
		if res, _ := s.fetch(file); res.StatusCode != http.StatusOK {
			t.Errorf("the picture of a profile = %d", res.StatusCode)
		}
		if n := s.registered(); n != 1 {
			t.Errorf("%d names are registered", n)
		}
	})
}
