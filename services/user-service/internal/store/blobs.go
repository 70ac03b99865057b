package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/fileblob" // file:// in BLOB_URL
	_ "gocloud.dev/blob/s3blob"   // s3:// in BLOB_URL
	"gocloud.dev/gcerrors"
	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/services/user-service/internal/profile"
)

// Blobs implements profile.Blobs in a folder or in the bucket of an S3-compatible store. It is
// safe for concurrent use.
type Blobs struct{ bucket *blob.Bucket }

var _ profile.Blobs = (*Blobs)(nil)

const (
	blobTimeout = 10 * time.Second // of one operation
	maxBlob     = 4 << 20          // more than any picture has
	deleting    = 8                // deletions at a time
)

// OpenBlobs opens the store with the address, file:///folder or s3://bucket, with the parameters
// of gocloud.dev. A folder is created; whether a bucket exists is not checked. The caller closes
// it.
func OpenBlobs(ctx context.Context, address string) (*Blobs, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("not a URL")
	}
	switch u.Scheme {
	case "file":
		// The type of a picture is in its name, so there is nothing to keep beside it. Temporary
		// files must be on the volume of the folder: they are renamed.
		for _, parameter := range []string{"create_dir=true", "no_tmp_dir=true", "metadata=skip", "dir_file_mode=0700"} {
			if name, _, _ := strings.Cut(parameter, "="); !strings.Contains("&"+u.RawQuery, "&"+name+"=") {
				u.RawQuery = strings.TrimPrefix(u.RawQuery+"&"+parameter, "&")
			}
		}
	case "s3":
	default:
		return nil, errors.New("want file:///folder or s3://bucket")
	}
	bucket, err := blob.OpenBucket(ctx, u.String())
	if err != nil {
		return nil, fmt.Errorf("open the storage of avatars: %w", err)
	}
	return &Blobs{bucket}, nil
}

// Close closes the connections.
func (b *Blobs) Close() error { return b.bucket.Close() }

// Put implements profile.Blobs.
func (b *Blobs) Put(ctx context.Context, key string, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, blobTimeout)
	defer cancel()
	options := &blob.WriterOptions{
		ContentType: profile.ContentType(key), CacheControl: profile.CacheControl, ContentDisposition: profile.ContentDisposition(key),
	}
	return storageFault("write picture", b.bucket.WriteAll(ctx, key, data, options))
}

// Get implements profile.Blobs.
func (b *Blobs) Get(ctx context.Context, key string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, blobTimeout)
	defer cancel()
	reader, err := b.bucket.NewReader(ctx, key, nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, profile.ErrNoAvatar
	}
	if err != nil {
		return nil, storageFault("open picture", err)
	}
	defer reader.Close()
	data, err := io.ReadAll(io.LimitReader(reader, maxBlob))
	if err != nil {
		return nil, storageFault("read picture", err)
	}
	return data, nil
}

// Delete implements profile.Blobs.
func (b *Blobs) Delete(ctx context.Context, keys []string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(deleting)
	for _, key := range keys {
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, blobTimeout)
			defer cancel()
			err := b.bucket.Delete(ctx, key)
			if gcerrors.Code(err) == gcerrors.NotFound {
				return nil
			}
			return storageFault("delete picture", err)
		})
	}
	return group.Wait()
}

// List implements profile.Blobs.
func (b *Blobs) List(ctx context.Context, before time.Time, page func(keys []string) error) error {
	const pageSize = 1000
	token := blob.FirstPageToken
	for len(token) > 0 {
		objects, next, err := b.page(ctx, token, pageSize)
		if err != nil {
			return err
		}
		var keys []string
		for _, object := range objects {
			if object.ModTime.Before(before) {
				keys = append(keys, object.Key)
			}
		}
		if len(keys) > 0 {
			if err := page(keys); err != nil {
				return err
			}
		}
		token = next
	}
	return nil
}

func (b *Blobs) page(ctx context.Context, token []byte, size int) ([]*blob.ListObject, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, blobTimeout)
	defer cancel()
	objects, next, err := b.bucket.ListPage(ctx, token, size, nil)
	return objects, next, storageFault("list pictures", err)
}

// storageFault returns err as profile.ErrAvatarStorage, or nil.
func storageFault(operation string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w: %w", operation, err, profile.ErrAvatarStorage)
}
