package profile

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
)

// ExportStore keeps the exports that were mailed until they expire.
type ExportStore interface {
	// RecordExport stores the event of an export.
	RecordExport(ctx context.Context, e event.Event) error
	// SaveExport stores an export in place of an earlier one of the user, with events.
	SaveExport(ctx context.Context, e StoredExport, events ...event.Event) error
	// Export returns the data of the export with a key that has not expired at now, or
	// ErrExportExpired.
	Export(ctx context.Context, key []byte, now time.Time) ([]byte, error)
	// PurgeExports deletes the exports that have expired at now.
	PurgeExports(ctx context.Context, now time.Time) error
}

// StoredExport is an export that can be read only with the secret in the mailed link.
type StoredExport struct {
	Key       []byte // by which it is found
	UserID    string
	Data      []byte // encrypted
	CreatedAt time.Time
	ExpiresAt time.Time
}

// Source is another service that holds something about users.
type Source struct {
	Name string
	// Load returns what the service holds about the subject of an access token, as a JSON
	// object. Reading fails if the object is incomplete.
	Load func(ctx context.Context, raw string) (io.ReadCloser, error)
}

// The failures of exports.
var (
	ErrExportUnavailable = problem.New(problem.Unavailable, "export_unavailable", "Not all services could say what they have about you. Try again later.").WithRetryAfter(10 * time.Second)
	ErrExportBusy        = problem.New(problem.Unavailable, "export_busy", "Other exports are being made. Try again shortly.").WithRetryAfter(5 * time.Second)
	ErrExportTooLarge    = problem.New(problem.Unavailable, "export_too_large", "Your data is too large for one export. Ask an administrator for it.")
	ErrExportExpired     = problem.New(problem.Gone, "export_expired", "This link has expired. Request a new export.")
	ErrExportUnproved    = problem.New(problem.Forbidden, "email_not_verified", "Verify your email address first: the link to your data is mailed there.")
)

const (
	// exportLimit bounds the memory of an export. JSON takes about a tenth of its size
	// compressed.
	exportLimit   = 32 << 20
	exportsAtOnce = 2
	exportWait    = 5 * time.Second
	// exportTimeout is less than the gateway waits for this service (UPSTREAM_TIMEOUT).
	exportTimeout = 12 * time.Second
)

// Exports collects everything that the services hold about a user. It is safe for concurrent
// use.
type Exports struct {
	// Shown returns a profile as its user sees it. It may be nil.
	Shown func(Profile) Profile

	profiles *Profiles
	store    ExportStore
	sources  []Source
	mail     MailLink
	lifetime time.Duration
	slots    chan struct{}
}

// MailLink mails a link with a secret to the address of the account of an access token, or fails
// with ErrExportUnproved or token.ErrRevoked.
type MailLink func(ctx context.Context, raw, secret string, expires time.Time) error

// NewExports returns exports of profiles and sources. The links that mail sends are valid for
// lifetime.
func NewExports(profiles *Profiles, store ExportStore, sources []Source, mail MailLink, lifetime time.Duration) *Exports {
	return &Exports{
		profiles: profiles, store: store, sources: sources, mail: mail, lifetime: lifetime, slots: make(chan struct{}, exportsAtOnce),
	}
}

// Download returns the caller's export, a JSON object compressed with gzip, and records that
// it was made. It fails with ErrExportUnavailable, ErrExportBusy or ErrExportTooLarge.
func (x *Exports) Download(ctx context.Context, caller Caller) ([]byte, error) {
	data, err := x.collect(ctx, caller)
	if err != nil {
		return nil, err
	}
	return data, x.store.RecordExport(ctx, event.New(ctx, x.profiles.time(), caller.UserID, event.UserDataExported{}))
}

// Mail makes the caller's export and mails a link to it. The export is encrypted with the
// secret in the link, so neither the database nor its backups can show it. It is stored before the
// link is mailed: if that fails, nobody has the secret, and the export expires. Mail fails as
// Download does, and with ErrExportUnproved. It returns when the link expires.
func (x *Exports) Mail(ctx context.Context, caller Caller) (expires time.Time, err error) {
	data, err := x.collect(ctx, caller)
	if err != nil {
		return time.Time{}, err
	}
	var random [32]byte
	rand.Read(random[:])
	secret, now := base64.RawURLEncoding.EncodeToString(random[:]), x.profiles.time()
	keys, err := exportKeys(secret)
	if err != nil {
		return time.Time{}, err
	}
	stored := StoredExport{Key: keys.lookup, UserID: caller.UserID, Data: keys.seal(data), CreatedAt: now, ExpiresAt: now.Add(x.lifetime)}
	exported := event.New(ctx, now, caller.UserID, event.UserDataExported{Mailed: true})
	if err := x.store.SaveExport(ctx, stored, exported); err != nil {
		return time.Time{}, err
	}
	if err := x.mail(ctx, caller.Token, secret, stored.ExpiresAt); err != nil {
		return time.Time{}, exportFault(err)
	}
	return stored.ExpiresAt, nil
}

// Open returns the export that a mailed link leads to, compressed with gzip. It fails with
// ErrExportExpired, also if there never was one.
func (x *Exports) Open(ctx context.Context, secret string) ([]byte, error) {
	keys, err := exportKeys(secret)
	if err != nil {
		return nil, ErrExportExpired
	}
	sealed, err := x.store.Export(ctx, keys.lookup, x.profiles.time())
	if err != nil {
		return nil, err
	}
	return keys.open(sealed)
}

// Purge deletes the exports that have expired.
func (x *Exports) Purge(ctx context.Context) error {
	return x.store.PurgeExports(ctx, x.profiles.time())
}

// collect asks every source before anything is sent to the client, so an export is whole or
// fails.
func (x *Exports) collect(ctx context.Context, caller Caller) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, exportTimeout)
	defer cancel()
	waiting, stop := context.WithTimeout(ctx, exportWait)
	defer stop()
	select {
	case x.slots <- struct{}{}:
		defer func() { <-x.slots }()
	case <-waiting.Done():
		return nil, ErrExportBusy
	}
	me, _, err := x.profiles.Me(ctx, caller)
	if err != nil {
		return nil, err
	}
	if x.Shown != nil {
		me = x.Shown(me)
	}
	head, err := json.Marshal(struct {
		UserID     string    `json:"userId"`
		ExportedAt time.Time `json:"exportedAt"`
		Profile    Profile   `json:"profile"`
	}{me.UserID, x.profiles.time(), me})
	if err != nil {
		return nil, fmt.Errorf("encode profile: %w", err)
	}
	out := &limitedBuffer{}
	zip := gzip.NewWriter(out)
	_, err = zip.Write(bytes.TrimSuffix(head, []byte("}")))
	for _, source := range x.sources {
		if err == nil {
			err = source.copy(ctx, zip, caller.Token)
		}
	}
	if err == nil {
		_, err = zip.Write([]byte("}"))
	}
	if err = errors.Join(err, zip.Close()); err != nil {
		return nil, exportFault(err)
	}
	return out.Bytes(), nil
}

func exportFault(err error) error {
	if errors.Is(err, ErrExportTooLarge) || errors.Is(err, ErrExportUnproved) || errors.Is(err, token.ErrRevoked) {
		return err
	}
	return errors.Join(ErrExportUnavailable, err)
}

func (s Source) copy(ctx context.Context, to io.Writer, raw string) error {
	data, err := s.Load(ctx, raw)
	if err != nil {
		return fmt.Errorf("export of %s: %w", s.Name, err)
	}
	defer data.Close()
	if _, err := fmt.Fprintf(to, `,%q:`, s.Name); err != nil {
		return err
	}
	if _, err := io.Copy(to, data); err != nil {
		return fmt.Errorf("export of %s: %w", s.Name, err)
	}
	return nil
}

// limitedBuffer is a buffer that fails with ErrExportTooLarge.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(data []byte) (int, error) {
	if b.Len()+len(data) > exportLimit {
		return 0, ErrExportTooLarge
	}
	return b.Buffer.Write(data)
}
