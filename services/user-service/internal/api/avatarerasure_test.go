package api_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/user-service/internal/api"
	"github.com/headgate/headgate/services/user-service/internal/profile"
)

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
