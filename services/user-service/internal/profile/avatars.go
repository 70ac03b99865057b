package profile

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/services/user-service/internal/picture"
)

// AvatarStore keeps the register of avatars: every name under which there may be pictures. A name
// is registered before the first picture is stored and released after the last one is deleted, so
// none is ever forgotten, whenever a process dies. Store.Update and Store.Erase mark a name that
// the profile no longer has as unused.
type AvatarStore interface {
	// RegisterAvatar registers an unused name.
	RegisterAvatar(ctx context.Context, name, userID string, at time.Time) error
	// Avatars returns the names that are registered for a user.
	Avatars(ctx context.Context, userID string) ([]string, error)
	// UnusedAvatars returns up to limit names that have been unused since before.
	UnusedAvatars(ctx context.Context, before time.Time, limit int) ([]string, error)
	// RegisteredAvatars returns those of the names that are registered.
	RegisteredAvatars(ctx context.Context, names []string) ([]string, error)
	// ReleaseAvatars removes names from the register.
	ReleaseAvatars(ctx context.Context, names []string) error
	// ClaimSweep reports whether the caller may sweep at now, as one instance may each interval.
	ClaimSweep(ctx context.Context, now time.Time, interval time.Duration) (bool, error)
}

// Blobs keeps the pictures by their keys. Its methods fail with ErrAvatarStorage.
type Blobs interface {
	Put(ctx context.Context, key string, data []byte) error
	// Get also fails with ErrNoAvatar.
	Get(ctx context.Context, key string) ([]byte, error)
	// Delete deletes the keys. It does not matter whether they exist.
	Delete(ctx context.Context, keys []string) error
	// List calls page with the keys that were last written before a time, some at a time.
	List(ctx context.Context, before time.Time, page func(keys []string) error) error
}

// Errors of avatars that clients can see.
var (
	ErrNoAvatar      = problem.New(problem.NotFound, "avatar_not_found", "Avatar not found.")
	ErrAvatarBusy    = problem.New(problem.Unavailable, "avatar_busy", "Too many images are being processed. Try again shortly.").WithRetryAfter(2 * time.Second)
	ErrAvatarStorage = problem.New(problem.Unavailable, "avatar_storage_unavailable", "The storage of avatars is unavailable. Try again later.").WithRetryAfter(5 * time.Second)
)

// Avatars makes, keeps and deletes the pictures of users. It is safe for concurrent use.
type Avatars struct {
	// MemoryWait is how long an upload waits for memory before it is refused.
	MemoryWait time.Duration
	// UploadTime is how long an upload may take after its body has arrived.
	UploadTime time.Duration

	profiles *Profiles
	register AvatarStore
	blobs    Blobs
	memory   *semaphore.Weighted
	budget   int64
}

const (
	memoryWait = 5 * time.Second
	uploadTime = 12 * time.Second // less than the gateway waits for this service (UPSTREAM_TIMEOUT)
	// leastShare is the part of the memory that each upload takes at least, so that as many
	// small images as this are processed at a time.
	leastShare = 8
	// cleanup is how long deleting pictures may take after the request that replaced them.
	cleanup = 10 * time.Second
)

// NewAvatars returns the avatars of profiles. Images are decoded in about memory bytes; one that
// needs more is decoded while no other is.
func NewAvatars(profiles *Profiles, register AvatarStore, blobs Blobs, memory int64) *Avatars {
	return &Avatars{
		MemoryWait: memoryWait, UploadTime: uploadTime,
		profiles: profiles, register: register, blobs: blobs, memory: semaphore.NewWeighted(memory), budget: memory,
	}
}

// Set makes an avatar of the image that was sent, declared to be of a media type or of none, and
// returns the changed profile. The pictures that it replaces are deleted. An image that makes the
// same pictures as before changes nothing, unless one of them is lost. It fails with the errors of
// package picture, with ErrAvatarBusy and ErrAvatarStorage, and as Profiles.Change does.
func (a *Avatars) Set(ctx context.Context, caller Caller, data []byte, declared string, match func(version int64) bool) (Profile, error) {
	made, err := a.squares(ctx, data, declared)
	if err != nil {
		return Profile{}, err
	}
	name := newName(caller.UserID, made)
	lost, err := a.lost(ctx, caller.UserID, name)
	if err != nil {
		return Profile{}, err
	}
	if err := a.store(ctx, caller.UserID, name, made); err != nil {
		return Profile{}, err
	}
	changed, err := a.change(ctx, caller, match, func(old string) string {
		if samePictures(old, name) && old != lost {
			return old
		}
		return name
	})
	if err != nil || changed.Avatar != name {
		a.forgetSoon(ctx, name)
	}
	return changed, err
}

// Remove removes the avatar of the caller, if there is one, and returns the profile. It fails as
// Profiles.Change does.
func (a *Avatars) Remove(ctx context.Context, caller Caller, match func(version int64) bool) (Profile, error) {
	return a.change(ctx, caller, match, func(string) string { return "" })
}

// Picture returns a picture, or fails with ErrNoAvatar or ErrAvatarStorage. file is the last
// segment of its URL.
func (a *Avatars) Picture(ctx context.Context, file string) ([]byte, error) {
	if !fileForm.MatchString(file) {
		return nil, ErrNoAvatar
	}
	return a.blobs.Get(ctx, key(file))
}

// squares decodes the image as soon as there is memory for it.
func (a *Avatars) squares(ctx context.Context, data []byte, declared string) (picture.Squares, error) {
	source, err := picture.Open(data, declared)
	if err != nil {
		return picture.Squares{}, err
	}
	need := min(max(source.Memory(), a.budget/leastShare), a.budget)
	wait, cancel := context.WithTimeout(ctx, a.MemoryWait)
	defer cancel()
	if err := a.memory.Acquire(wait, need); err != nil {
		if ctx.Err() != nil {
			return picture.Squares{}, ctx.Err()
		}
		return picture.Squares{}, ErrAvatarBusy
	}
	defer a.memory.Release(need)
	return source.Squares()
}

// lost returns the name of the user's avatar if it stands for the same pictures as another name,
// and one of them is not stored. A new name, unlike a repair, reaches caches that remember the
// failure.
func (a *Avatars) lost(ctx context.Context, userID, like string) (name string, err error) {
	current, err := a.profiles.store.Get(ctx, userID)
	switch {
	case errors.Is(err, ErrNotFound):
		return "", nil
	case err != nil:
		return "", err
	case !samePictures(current.Avatar, like):
		return "", nil
	}
	for _, size := range picture.Sizes {
		_, err := a.blobs.Get(ctx, key(File(current.Avatar, size)))
		if errors.Is(err, ErrNoAvatar) {
			return current.Avatar, nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", nil
}

// store registers a name and stores its pictures.
func (a *Avatars) store(ctx context.Context, userID, name string, made picture.Squares) error {
	if err := a.register.RegisterAvatar(ctx, name, userID, a.profiles.time()); err != nil {
		return err
	}
	for _, square := range made.Pictures {
		if err := a.blobs.Put(ctx, key(File(name, square.Size)), square.Data); err != nil {
			a.forgetSoon(ctx, name)
			return err
		}
	}
	return nil
}

// change sets the avatar of the caller's profile to what next makes of the old one, and deletes
// the old pictures after that is stored.
func (a *Avatars) change(ctx context.Context, caller Caller, match func(version int64) bool, next func(old string) string) (Profile, error) {
	var old string
	changed, err := a.profiles.apply(ctx, caller, match, func(p *Profile) ([]string, error) {
		old = p.Avatar
		if p.Avatar = next(old); p.Avatar == old {
			return nil, nil
		}
		return []string{"avatarUrl"}, nil
	})
	if err == nil && old != "" && changed.Avatar != old {
		a.forgetSoon(ctx, old)
	}
	return changed, err
}

// forget deletes the pictures of names and releases these.
func (a *Avatars) forget(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	var keys []string
	for _, name := range names {
		for _, size := range picture.Sizes {
			keys = append(keys, key(File(name, size)))
		}
	}
	if err := a.blobs.Delete(ctx, keys); err != nil {
		return err
	}
	return a.register.ReleaseAvatars(ctx, names)
}

// forgetSoon deletes the pictures of a name that no profile has. If that fails, or if this
// process dies, Sweep deletes them.
func (a *Avatars) forgetSoon(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanup)
	defer cancel()
	_ = a.forget(ctx, []string{name})
}

// Deleted handles the event of a deleted account: it erases the profile and deletes all pictures
// of the user. It fails while a picture may be left.
func (a *Avatars) Deleted(ctx context.Context, e event.Event) error {
	if err := a.profiles.Deleted(ctx, e); err != nil {
		return err
	}
	userID, err := subject(e)
	if err != nil {
		return err
	}
	names, err := a.register.Avatars(ctx, userID)
	if err != nil {
		return err
	}
	return a.forget(ctx, names)
}

// The name of an avatar is a hash and random bits in base32, and the extension of its files. Equal
// pictures of one user have equal hashes, so sending them again changes nothing. The random bits
// make each name unique, so deleting one can never reach pictures that are stored at the same time,
// and nobody can guess one.
const (
	hashChars   = 26 // 130 bits
	randomChars = 26
)

var (
	nameForm = regexp.MustCompile(`^([a-z2-7]{` + strconv.Itoa(hashChars+randomChars) + `})\.(jpg|png)$`)
	fileForm = regexp.MustCompile(`^[a-z2-7]{` + strconv.Itoa(hashChars+randomChars) + `}-(64|256|512)\.(jpg|png)$`)
	// keyForm also matches the files that a process leaves which dies while it writes one.
	keyForm = regexp.MustCompile(`^[a-z2-7]{2}/([a-z2-7]{` + strconv.Itoa(hashChars+randomChars) + `})-(?:64|256|512)(\.jpg|\.png)(\.[0-9a-f]+\.tmp)?$`)
)

func newName(userID string, made picture.Squares) string {
	hash := sha256.New()
	hash.Write([]byte(userID))
	for _, square := range made.Pictures {
		fmt.Fprintf(hash, " %d ", len(square.Data))
		hash.Write(square.Data)
	}
	content := strings.ToLower(base32.StdEncoding.EncodeToString(hash.Sum(nil)))
	return content[:hashChars] + strings.ToLower(rand.Text())[:randomChars] + "." + made.Extension
}

// samePictures reports whether two names stand for equal pictures.
func samePictures(a, b string) bool {
	return nameForm.MatchString(a) && nameForm.MatchString(b) && a[:hashChars] == b[:hashChars]
}

// File returns the last segment of the URL of a picture, or "" without an avatar.
func File(name string, size int) string {
	parts := nameForm.FindStringSubmatch(name)
	if parts == nil {
		return ""
	}
	return fmt.Sprintf("%s-%d.%s", parts[1], size, parts[2])
}

// key returns the key of a picture. Its folder keeps folders of a file system small.
func key(file string) string { return file[:2] + "/" + file }

// CacheControl is the Cache-Control of every picture: what a name stands for never changes.
const CacheControl = "public, max-age=31536000, immutable"

// ContentType returns the media type of a picture, by its file or key.
func ContentType(file string) string {
	if strings.HasSuffix(file, ".png") {
		return "image/png"
	}
	return "image/jpeg"
}

// ContentDisposition returns the Content-Disposition of a picture, by its file or key.
func ContentDisposition(file string) string {
	return `inline; filename="avatar` + file[strings.LastIndexByte(file, '.'):] + `"`
}
