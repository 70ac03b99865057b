package api

import (
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"

	"github.com/gorilla/mux"
	"golang.org/x/sync/semaphore"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/user-service/internal/picture"
	"github.com/headgate/headgate/services/user-service/internal/profile"
)

// AvatarPath is the path below which the gateway serves pictures.
const AvatarPath = Prefix + "/avatars"

// Assets is the public URL below which the pictures are, without a slash at its end.
type Assets string

// Shown returns a profile as a response has it.
func (a Assets) Shown(p profile.Profile) profile.Profile {
	p.AvatarURL = ""
	if file := profile.File(p.Avatar, defaultSize); file != "" {
		p.AvatarURL = string(a) + "/" + file
	}
	p.Avatar = ""
	return p
}

const (
	defaultSize = 256 // of avatarUrl
	avatarField = "avatar"
	// uploadMemory is how much memory the bodies of uploads may take. Each counts with its
	// Content-Length from the beginning, however slowly it arrives.
	uploadMemory = 64 << 20
)

type avatars struct {
	*profile.Avatars

	assets Assets
	bodies *semaphore.Weighted
}

// AvatarRoutes returns the routes of avatars and who may call them.
func AvatarRoutes(all *profile.Avatars, assets Assets) []web.Route {
	a := &avatars{Avatars: all, assets: assets, bodies: semaphore.NewWeighted(uploadMemory)}
	return []web.Route{
		{Method: http.MethodPut, Path: Prefix + "/me/avatar", Access: web.SignedIn, Handler: a.set},
		{Method: http.MethodDelete, Path: Prefix + "/me/avatar", Access: web.SignedIn, Handler: a.remove},
		// A picture is the same whatever a cache adds to its URL.
		{Method: http.MethodGet, Path: Prefix + "/avatars/{file}", Access: web.Anyone, Query: web.Takes().OrIgnores(), Handler: a.picture},
	}
}

func (a *avatars) set(w http.ResponseWriter, r *http.Request) error {
	caller, err := callingUser(r)
	if err != nil {
		return err
	}
	size := r.ContentLength
	if size < 0 || size > picture.MaxBytes {
		size = picture.MaxBytes
	}
	if err := a.reserve(r.Context(), size); err != nil {
		return err
	}
	defer a.bodies.Release(size)
	data, declared, err := readImage(w, r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), a.UploadTime)
	defer cancel()
	changed, err := a.Set(ctx, caller, data, declared, ifMatch(r))
	if errors.Is(err, context.DeadlineExceeded) && r.Context().Err() == nil {
		err = errors.Join(profile.ErrAvatarBusy, err) // It has waited for memory for too long to finish in time.
	}
	if err != nil {
		return err
	}
	return a.send(w, changed)
}

// reserve takes memory for a body before it is read.
func (a *avatars) reserve(ctx context.Context, size int64) error {
	wait, cancel := context.WithTimeout(ctx, a.MemoryWait)
	defer cancel()
	if err := a.bodies.Acquire(wait, size); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return profile.ErrAvatarBusy
	}
	return nil
}

func (a *avatars) remove(w http.ResponseWriter, r *http.Request) error {
	caller, err := callingUser(r)
	if err != nil {
		return err
	}
	changed, err := a.Remove(r.Context(), caller, ifMatch(r))
	if err != nil {
		return err
	}
	return a.send(w, changed)
}

func (a *avatars) send(w http.ResponseWriter, p profile.Profile) error {
	w.Header().Set("ETag", etag(p.Version))
	return web.OK(w, http.StatusOK, a.assets.Shown(p))
}

// picture responds with a picture. A page on any origin may show it, and nothing in it can act.
func (a *avatars) picture(w http.ResponseWriter, r *http.Request) error {
	file := mux.Vars(r)["file"]
	data, err := a.Picture(r.Context(), file)
	if err != nil {
		return err
	}
	tag := `"` + file + `"`
	h := w.Header()
	h.Set("Cache-Control", profile.CacheControl)
	h.Set("ETag", tag)
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
	if hasTag(strings.ReplaceAll(list(r, "If-None-Match"), "W/", ""), tag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", profile.ContentType(file))
	h.Set("Content-Disposition", profile.ContentDisposition(file))
	h.Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	_, _ = w.Write(data) //nolint:gosec // It is an image that picture has made; if it fails, the client has gone.
	return nil
}

// readImage returns the image in the body of r and its declared media type, which is empty if the
// client did not know it. The body is the image, or a form with the image in the field avatar.
func readImage(w http.ResponseWriter, r *http.Request) (data []byte, declared string, err error) {
	if err := web.CheckEncoding(w, r); err != nil {
		return nil, "", err
	}
	values := r.Header.Values("Content-Type")
	if len(values) != 1 {
		return nil, "", picture.ErrType
	}
	kind, parameters, err := mime.ParseMediaType(values[0])
	if err != nil {
		return nil, "", picture.ErrType
	}
	if r.ContentLength > picture.MaxBytes {
		return nil, "", problem.ErrTooLarge
	}
	body := http.MaxBytesReader(w, r.Body, picture.MaxBytes)
	switch declared := imageType(kind); {
	case kind == "multipart/form-data":
		return readForm(body, parameters["boundary"])
	case declared == "":
		return nil, "", picture.ErrType
	default:
		data, err := io.ReadAll(body)
		if err != nil {
			return nil, "", web.BodyFault(err)
		}
		return data, declared, nil
	}
}

// imageType returns the media type of images that a client means, or "".
func imageType(kind string) string {
	if kind == "image/jpg" { // not registered, but common
		kind = string(picture.JPEG)
	}
	switch picture.Format(kind) {
	case picture.JPEG, picture.PNG, picture.GIF, picture.WebP:
		return kind
	}
	return ""
}

// readForm returns the image of a form (RFC 7578), which must have the field avatar and no other.
func readForm(body io.Reader, boundary string) (data []byte, declared string, err error) {
	if boundary == "" {
		return nil, "", web.BodyFault(errors.New("no boundary"))
	}
	form, found := multipart.NewReader(body, boundary), false
	for {
		part, err := form.NextPart()
		switch {
		case errors.Is(err, io.EOF) && found:
			return data, declared, nil
		case errors.Is(err, io.EOF):
			return nil, "", fieldFault(avatarField, "required", "Send the image in the field avatar.")
		case err != nil:
			return nil, "", web.BodyFault(err)
		case part.FormName() != avatarField:
			return nil, "", fieldFault(part.FormName(), "unknown_field", "Unknown field. Send the image in the field avatar.")
		case found:
			return nil, "", fieldFault(avatarField, "duplicate_field", "Send one image.")
		}
		found = true
		if declared, err = partType(part); err != nil {
			return nil, "", err
		}
		if data, err = io.ReadAll(part); err != nil {
			return nil, "", web.BodyFault(err)
		}
	}
}

// partType returns the media type of a part. Programs that do not know the type of a file send
// application/octet-stream or none.
func partType(part *multipart.Part) (string, error) {
	text := part.Header.Get("Content-Type")
	if text == "" {
		return "", nil
	}
	kind, _, err := mime.ParseMediaType(text)
	if err == nil && kind == "application/octet-stream" {
		return "", nil
	}
	if declared := imageType(kind); err == nil && declared != "" {
		return declared, nil
	}
	return "", picture.ErrType
}

const maxFieldName = 64

func fieldFault(field, code, message string) error {
	if len(field) > maxFieldName {
		field = strings.ToValidUTF8(field[:maxFieldName], "")
	}
	return problem.Validation(problem.Field{Field: field, Code: code, Message: message})
}
