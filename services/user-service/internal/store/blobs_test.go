package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/user-service/internal/profile"
	"github.com/headgate/headgate/services/user-service/internal/store"
)

// onBothStores runs a test on a folder and on a server with the API of S3.
func onBothStores(t *testing.T, test func(t *testing.T, address string)) {
	t.Helper()
	t.Run("folder", func(t *testing.T) {
		t.Parallel()
		test(t, "file://"+filepath.Join(t.TempDir(), "made", "by", "the", "service"))
	})
	t.Run("S3", func(t *testing.T) {
		t.Parallel()
		test(t, testkit.StartS3(t).URL)
	})
	t.Run("prefix of S3", func(t *testing.T) {
		t.Parallel()
		test(t, testkit.StartS3(t).URL+"&prefix=avatars/")
	})
}

func openBlobs(t *testing.T, address string) *store.Blobs {
	t.Helper()
	blobs, err := store.OpenBlobs(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { blobs.Close() })
	return blobs
}

// TestBlobs: what is put can be read, listed and deleted.
func TestBlobs(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, address string) {
		t.Helper()
		blobs, ctx := openBlobs(t, address), t.Context()
		if _, err := blobs.Get(ctx, "aa/none.jpg"); !errors.Is(err, profile.ErrNoAvatar) {
			t.Errorf("get of nothing = %v", err)
		}
		if err := blobs.Delete(ctx, []string{"aa/none.jpg", "bb/none.jpg"}); err != nil {
			t.Errorf("delete of nothing = %v", err)
		}
		for _, data := range []string{"old", "new"} {
			if err := blobs.Put(ctx, "aa/one.jpg", []byte(data)); err != nil {
				t.Fatal(err)
			}
		}
		if data, err := blobs.Get(ctx, "aa/one.jpg"); err != nil || string(data) != "new" {
			t.Errorf("get = %q, %v", data, err)
		}
		const many = 1100 // more than one page
		for i := range many {
			if err := blobs.Put(ctx, fmt.Sprintf("bb/%04d.png", i), []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		all := listed(t, blobs, time.Now().Add(time.Hour))
		if len(all) != many+1 || all[0] != "aa/one.jpg" || all[1] != "bb/0000.png" {
			t.Errorf("%d listed: %.100s", len(all), all)
		}
		if recent := listed(t, blobs, time.Now().Add(-time.Hour)); len(recent) != 0 {
			t.Errorf("older than an hour: %s", recent)
		}
		if err := blobs.Delete(ctx, all); err != nil {
			t.Error(err)
		}
		if left := listed(t, blobs, time.Now().Add(time.Hour)); len(left) != 0 {
			t.Errorf("%d left", len(left))
		}
	})
}

func listed(t *testing.T, blobs *store.Blobs, before time.Time) []string {
	t.Helper()
	var all []string
	if err := blobs.List(t.Context(), before, func(keys []string) error { all = append(all, keys...); return nil }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// TestFolderHasOnlyPictures: beside the pictures there is nothing, and nobody else reads them.
func TestFolderHasOnlyPictures(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "blobs")
	blobs := openBlobs(t, "file://"+folder)
	if err := blobs.Put(t.Context(), "aa/one.jpg", []byte("x")); err != nil {
		t.Fatal(err)
	}
	var files []string
	err := filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, strings.TrimPrefix(path, folder))
		}
		return err
	})
	if err != nil || !slices.Equal(files, []string{"/aa/one.jpg"}) {
		t.Errorf("files = %s, %v", files, err)
	}
	if info, err := os.Stat(folder); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder = %v, %v", info.Mode(), err)
	}
}

// TestOpenBlobsRefuses: an address that cannot work is refused when the service starts.
func TestOpenBlobsRefuses(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"", "blobs", "/blobs", "mem://", "gs://bucket", "s3://", "file://" + file, "file:///tmp?unknown=1", "s3://b?unknown=1", "s3://b?use_path_style=maybe", ":"} {
		if blobs, err := store.OpenBlobs(t.Context(), address); err == nil {
			t.Errorf("%q was opened", address)
			blobs.Close()
		}
	}
}

// TestStorageIsAway: every operation fails with the error of an outage, soon.
func TestStorageIsAway(t *testing.T) {
	t.Parallel()
	server := testkit.StartS3(t)
	blobs, ctx := openBlobs(t, server.URL), t.Context()
	server.Stop()
	_, get := blobs.Get(ctx, "aa/one.jpg")
	for operation, err := range map[string]error{
		"get": get, "put": blobs.Put(ctx, "aa/one.jpg", []byte("x")), "delete": blobs.Delete(ctx, []string{"aa/one.jpg"}),
		"list": blobs.List(ctx, time.Now(), func([]string) error { return nil }),
	} {
		if !errors.Is(err, profile.ErrAvatarStorage) {
			t.Errorf("%s = %v", operation, err)
		}
	}
}
