package main

import (
	"github.com/headgate/headgate/pkg/backend"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/token"
)

// Config is the configuration, read from the environment.
type Config struct {
	backend.Config
	deadletter.Retention
	token.Remote

	ProfileCacheMemory uint32 `envconfig:"PROFILE_CACHE_MEMORY" default:"33554432" desc:"Bytes of memory for the profiles that are read most often. 0 keeps none: then each read asks Redis."`
}
