package api_test

import (
	"image/color"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/user-service/internal/api"
	"github.com/headgate/headgate/services/user-service/internal/picture/picturetest"
)

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

func photo(c color.Color) string { return string(picturetest.JPEG(picturetest.Plain(600, 600, c))) }

func (s *service) upload(caller token.Identity, image string, header ...string) answer {
	s.t.Helper()
	return s.do(caller, "PUT", "/me/avatar", image, append([]string{"Content-Type", "image/jpeg"}, header...)...)
}

// fetch gets a file of an avatar.
func (s *service) fetch(file string, header ...string) (*http.Response, []byte) {
	s.t.Helper()
	return s.download(strings.TrimPrefix(api.AvatarPath, api.Prefix)+"/"+file, header...)
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
