package main

import (
	"context"
	"crypto/rand"

	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/tests/internal/redisserver"
)

// deployedRedis is Redis as the deployment runs it.
type deployedRedis struct{ config redisserver.Config }

func newDeployedRedis(root string) *deployedRedis {
	d := &deployedRedis{config: redisserver.Config{Root: root, Passwords: map[string]string{}}}
	for _, user := range redisserver.Users {
		d.config.Passwords[user] = rand.Text()
	}
	return d
}

// launch starts the server and returns when it has loaded its data.
func (d *deployedRedis) launch(ctx context.Context, opts localserver.Options) (*localserver.Server, error) {
	c := d.config
	c.Dir, c.Port, c.Output = opts.Dir, opts.Port, opts.Output
	if c.Port == 0 {
		var err error
		if c.Port, err = localserver.FreePort(ctx); err != nil {
			return nil, err
		}
	}
	process, err := redisserver.Start(ctx, c)
	if err != nil {
		return nil, err
	}
	return &localserver.Server{Process: process, URL: c.URL(redisserver.Operator), Port: c.Port}, nil
}
