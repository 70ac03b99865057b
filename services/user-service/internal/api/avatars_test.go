package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image/color"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/user-service/internal/picture"
	"github.com/headgate/headgate/services/user-service/internal/profile"
)

const avatarMemory = 320 << 20

var red, blue = color.NRGBA{255, 0, 0, 255}, color.NRGBA{0, 0, 255, 255}

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
		if err := s.blobs.Delete(t.Context(), s.stored()[2:]); err != nil {
			t.Fatal(err)
		}
		if restored := s.file(s.want(s.upload(me, photo(red)), 200)); restored == first {
			t.Error("the same image keeps an avatar of which a picture is lost")
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
	res, data := s.export(s.issuer.Token(me))
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
