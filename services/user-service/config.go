package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/headgate/headgate/pkg/backend"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/user-service/internal/api"
	"github.com/headgate/headgate/services/user-service/internal/profile"
)

// Config is the configuration, read from the environment.
type Config struct {
	backend.Config
	deadletter.Retention
	token.Remote
	AvatarConfig

	ProfileCacheMemory uint32 `envconfig:"PROFILE_CACHE_MEMORY" default:"33554432" desc:"Bytes of memory for the profiles that are read most often. 0 keeps none: then each read asks Redis."`

	ReplicaURLs service.Secret `envconfig:"DATABASE_REPLICA_URLS" ignored:"true" desc:"Comma-separated connection strings of streaming replicas of the database. The list of profiles is read there while a replica lags by at most five seconds; everything else is read from DATABASE_URL."`

	EmailURL  string        `envconfig:"EMAIL_URL" desc:"URL of email-service, for example http://email-service:8080. Exports of a user's data need it."`
	AuditURL  string        `envconfig:"AUDIT_URL" desc:"URL of audit-service. Exports need it."`
	ExportTTL time.Duration `envconfig:"EXPORT_TTL" default:"24h" desc:"How long a mailed link to an export is valid; 10m to 168h."`
}

// ValidateOwn checks the fields that are user-service's own.
func (c Config) ValidateOwn() error {
	var faults []error
	for variable, value := range map[string]string{"EMAIL_URL": c.EmailURL, "AUDIT_URL": c.AuditURL} {
		at, err := url.Parse(value)
		if value != "" && (err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "") {
			faults = append(faults, fmt.Errorf("%s: want http(s)://host", variable))
		}
	}
	if c.ExportTTL < 10*time.Minute || c.ExportTTL > 168*time.Hour {
		faults = append(faults, errors.New("EXPORT_TTL: want 10m to 168h"))
	}
	for _, setting := range [][2]string{{"PUBLIC_BASE_URL", c.PublicBaseURL}, {"PUBLIC_ASSET_BASE_URL", c.PublicAssetBaseURL}} {
		if setting[1] != "" {
			faults = append(faults, c.CheckURL(setting[0], setting[1]))
		}
	}
	return errors.Join(faults...)
}

// sources are the services that are asked for exports. auth-service is where the keys are.
func (c Config) sources() []profile.Source {
	return []profile.Source{api.Source("auth", c.JWKSURL), api.Source("email", c.EmailURL), api.Source("audit", c.AuditURL)}
}

// AvatarConfig is the part of the configuration for avatars.
type AvatarConfig struct {
	BlobURL             string        `envconfig:"BLOB_URL" desc:"Where the pictures of avatars are stored: file:///folder, which all instances must share, or s3://bucket?region=eu-central-1 for any S3-compatible store, with the parameters of gocloud.dev such as endpoint=https://s3.example.com&use_path_style=true, and a prefix (prefix=avatars/). The keys of the store are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what else the AWS SDK finds. Default: the folder blobs in LOCAL_DIR."`
	PublicBaseURL       string        `envconfig:"PUBLIC_BASE_URL" desc:"The public URL of the gateway, such as https://id.example.com. The default of PUBLIC_ASSET_BASE_URL begins with it."`
	PublicAssetBaseURL  string        `envconfig:"PUBLIC_ASSET_BASE_URL" desc:"The public URL below which the pictures of avatars are, such as that of a CDN. It may change at any time, because profiles store only names. Default: /api/v1/user/avatars of PUBLIC_BASE_URL, without a host if that is not set."`
	AvatarMemory        int64         `envconfig:"AVATAR_MEMORY" default:"335544320" desc:"Bytes of memory that decoding images may take at a time; at least 67108864. One image can need as much as the default. Further uploads wait for five seconds and then get 503."`
	AvatarSweepInterval time.Duration `envconfig:"AVATAR_SWEEP_INTERVAL" default:"1h" desc:"How often one of the instances deletes pictures that no profile has; 1m to 168h."`
}

// Validate implements service.Validator.
func (c AvatarConfig) Validate() error {
	var faults []error
	if c.AvatarMemory < 64<<20 {
		faults = append(faults, errors.New("AVATAR_MEMORY: want 67108864 or more"))
	}
	if c.AvatarSweepInterval < time.Minute || c.AvatarSweepInterval > 7*24*time.Hour {
		faults = append(faults, errors.New("AVATAR_SWEEP_INTERVAL: want 1m to 168h"))
	}
	return errors.Join(faults...)
}

// assets returns the URL below which the pictures are.
func (c AvatarConfig) assets() api.Assets {
	return api.Assets(strings.TrimSuffix(cmp.Or(c.PublicAssetBaseURL, strings.TrimSuffix(c.PublicBaseURL, "/")+api.AvatarPath), "/"))
}

// blobs returns the URL of the storage.
func (c Config) blobs() (string, error) {
	if c.BlobURL != "" {
		return c.BlobURL, nil
	}
	folder, err := filepath.Abs(filepath.Join(c.LocalDir, "blobs"))
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(folder)}).String(), err
}
