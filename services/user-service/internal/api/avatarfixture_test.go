package api_test

import (
	"context"
	"fmt"
	"image/color"
	"io"
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
