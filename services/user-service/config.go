package main

import (
	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
)

// Config is the configuration, read from the environment.
type Config struct {
	service.Common
	web.Listener
	web.BehindGateway
	postgres.Database
	bus.Redis
	bus.Streams
	token.Expected
	token.Remote
}
