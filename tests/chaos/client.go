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

// patience is how long a client waits; after that the outcome is unknown.
const patience = 6 * time.Second

func newClient(gateway string) *client {
	return &client{gateway: gateway, http: &http.Client{
		Timeout:   patience,
		Transport: &http.Transport{MaxIdleConnsPerHost: 32, IdleConnTimeout: 30 * time.Second},
	}}
}

type tokens struct {
	Access  string `json:"accessToken"`
	Refresh string `json:"refreshToken"`
}

// answer is what came back; an error says that nothing readable did.
type answer struct {
	status int
	Code   string `json:"code"`
	Data   struct {
		Tokens tokens `json:"tokens"`
	} `json:"data"`
	err error
}

type object = map[string]any

// call sends a request with that id, with a bearer token unless that is empty.
func (c *client) call(ctx context.Context, id, method, path, bearer string, body object) answer {
	var content io.Reader = http.NoBody
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return answer{err: err}
		}
		content = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.gateway+path, content)
	if err != nil {
		return answer{err: err}
	}
	req.Header.Set("X-Request-Id", id)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
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
	if err == nil && res.Header.Get("X-Request-Id") != id {
		err = fmt.Errorf("the gateway has changed the request id to %q", res.Header.Get("X-Request-Id"))
	}
	a.err = err
	return a
}

// outcome says what an answer tells of the effect: only a refusal proves that a
// request to write had none.
func (a answer) outcome(writes bool) outcome {
	switch {
	case a.err == nil && a.status < 300:
		return ok
	case a.err == nil && a.status < 500 || !writes:
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

// digest names a token without giving it away.
func digest(token string) string {
	if token == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:12])
}
