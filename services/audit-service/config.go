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
}
