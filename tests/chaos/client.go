package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// client calls the gateway.
type client struct {
	gateway string
	http    *http.Client
}

// clientTimeout is how long a client waits; after that the outcome is unknown.
const clientTimeout = 6 * time.Second

func newClient(gateway string) *client {
	return &client{gateway: gateway, http: &http.Client{
		Timeout:   clientTimeout,
		Transport: &http.Transport{MaxIdleConnsPerHost: 32, IdleConnTimeout: 30 * time.Second},
	}}
}

type tokens struct {
	Access  string `json:"accessToken"`
	Refresh string `json:"refreshToken"`
}

// answer is a response; err says that there was none, or that it could not be decoded.
type answer struct {
	status int
	Code   string `json:"code"`
	Data   struct {
		Tokens tokens `json:"tokens"`
		Bio    string `json:"bio"`
	} `json:"data"`
	err error
}

type object = map[string]any

// request is a call of the API.
type request struct {
	id, method, path string
	bearer           string // the access token; may be empty
	body             object // may be nil
}

// call sends a request.
func (c *client) call(ctx context.Context, r request) answer {
	var content io.Reader = http.NoBody
	if r.body != nil {
		encoded, err := json.Marshal(r.body)
		if err != nil {
			return answer{err: err}
		}
		content = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.gateway+r.path, content)
	if err != nil {
		return answer{err: err}
	}
	req.Header.Set("X-Request-Id", r.id)
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+r.bearer)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	a := answer{status: res.StatusCode}
	data, err := io.ReadAll(res.Body)
	if err == nil {
		err = json.Unmarshal(data, &a)
	}
	if err == nil && res.Header.Get("X-Request-Id") != r.id {
		err = fmt.Errorf("the gateway changed the request id to %q", res.Header.Get("X-Request-Id"))
	}
	a.err = err
	return a
}

// outcome is the outcome of an operation of a kind. Only a 4xx response proves that a write
// had no effect.
func (a answer) outcome(kind string) outcome {
	switch {
	case a.err == nil && a.status < 300:
		return ok
	case a.err == nil && a.status < 500 || kind == read:
		return fail
	}
	return unknown
}

func (a answer) detail() string {
	if a.err != nil {
		return a.err.Error()
	}
	return a.Code
}

// digest identifies a token without revealing it.
func digest(token string) string {
	if token == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:12])
}
