package tests

import (
	"bytes"
	"encoding/json"
	pixels "image"
	"image/png"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
)

// TestOpenAPITourOfTheAvatar: an image goes through the gateway, and everybody can get it.
func TestOpenAPITourOfTheAvatar(t *testing.T) {
	t.Parallel()
	c := newClient(t)
	c.signup(newEmail())
	photo := largeImage(t)
	set := func(kind string, body []byte) (*http.Response, profile) {
		t.Helper()
		res, data := c.send("PUT", c.gateway+"/api/v1/user/me/avatar", body, "Content-Type", kind, "Authorization", "Bearer "+c.tokens.AccessToken)
		var answer struct{ Data profile }
		if err := json.Unmarshal(data, &answer); err != nil {
			t.Fatalf("PUT avatar = %s, %v in %s", res.Status, err, data)
		}
		return res, answer.Data
	}
	if res, _ := set("image/svg+xml", []byte("<svg/>")); res.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("PUT of an SVG = %s", res.Status)
	}
	if res, _ := set("image/png", make([]byte, 5<<20+1)); res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("PUT of more than 5 MiB = %s", res.Status)
	}
	res, me := set("image/png", photo)
	if res.StatusCode != http.StatusOK || !strings.HasPrefix(me.AvatarURL, c.gateway+"/api/v1/user/avatars/") {
		t.Fatalf("PUT avatar = %s, %s", res.Status, me.AvatarURL)
	}
	picture, data := c.send("GET", me.AvatarURL, nil)
	if picture.StatusCode != http.StatusOK || picture.Header.Get("Cache-Control") != "public, max-age=31536000, immutable" || picture.Header.Get("X-Content-Type-Options") != "nosniff" ||
		picture.Header.Get("Cross-Origin-Resource-Policy") != "cross-origin" || !bytes.HasPrefix(data, []byte("\xff\xd8\xff")) {
		t.Errorf("GET %s = %s %v", me.AvatarURL, picture.Status, picture.Header)
	}
	if again, _ := c.send("GET", me.AvatarURL, nil, "If-None-Match", picture.Header.Get("ETag")); again.StatusCode != http.StatusNotModified {
		t.Errorf("GET with the ETag = %s", again.Status)
	}
	c.do(http.StatusOK, "DELETE /api/v1/user/me/avatar", nil, nil)
	if gone, _ := c.send("GET", me.AvatarURL, nil); gone.StatusCode != http.StatusNotFound {
		t.Errorf("GET after DELETE = %s", gone.Status)
	}
}

// profile is the part of a profile that tests of avatars need.
type profile struct {
	AvatarURL string `json:"avatarUrl"`
}

// largeImage returns a PNG of between one and five MiB.
func largeImage(t *testing.T) []byte {
	t.Helper()
	m := pixels.NewNRGBA(pixels.Rect(0, 0, 700, 700))
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(m.Pix) // It never fails.
	for i := 3; i < len(m.Pix); i += 4 {
		m.Pix[i] = 255
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil || b.Len() < 1<<20 {
		t.Fatalf("%d bytes, %v", b.Len(), err)
	}
	return b.Bytes()
}

// send sends a request with a body that is not JSON.
func (c *client) send(method, address string, body []byte, header ...string) (*http.Response, []byte) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, address, bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := httpClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	data, err := readAll(c.t.Context(), res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return res, data
}
