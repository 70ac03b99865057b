package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// outcome is what the client knows about the effect of an operation.
type outcome string

const (
	ok      outcome = "ok"
	fail    outcome = "fail"    // It had no effect.
	unknown outcome = "unknown" // It may have had an effect.
)

// The operations.
const (
	signup  = "signup"
	login   = "login"
	refresh = "refresh"
	patch   = "patch"
	read    = "read"
	notify  = "notify" // an event, added by the run, that email-service must mail
)

// operation is an entry of the history. Its ID is the request id.
type operation struct {
	ID       string    `json:"id"`
	Kind     string    `json:"op"`
	Email    string    `json:"email"`
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	Phase    string    `json:"phase"`
	Outcome  outcome   `json:"outcome"`
	Status   int       `json:"status,omitempty"`
	Detail   string    `json:"detail,omitempty"`
	Spent    string    `json:"spent,omitempty"`  // digest of the presented refresh token
	Gained   string    `json:"gained,omitempty"` // digest of its successor
	Bio      string    `json:"bio,omitempty"`    // of the profile that was read; a patch sets it to its id
	Injected bool      `json:"injected,omitempty"`
}

// history is the record of all operations of the clients. It is safe for concurrent use.
type history struct {
	mu         sync.Mutex
	file       *os.File
	encoder    *json.Encoder
	phase      string
	operations []operation
	err        error
}

func newHistory(dir string) (*history, error) {
	file, err := os.Create(filepath.Join(dir, "history.jsonl"))
	if err != nil {
		return nil, fmt.Errorf("make history: %w", err)
	}
	return &history{file: file, encoder: json.NewEncoder(file)}, nil
}

func (h *history) enter(phase string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.phase = phase
}

func (h *history) current() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.phase
}

func (h *history) add(o operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.operations = append(h.operations, o)
	h.err = errors.Join(h.err, h.encoder.Encode(o))
}

// all returns the operations that have ended.
func (h *history) all() []operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]operation(nil), h.operations...)
}

// unknowns returns the number of operations of a phase whose outcome is unknown, of these
// kinds or of all.
func (h *history) unknowns(phase string, kinds []string) int64 {
	var n int64
	for _, o := range h.all() {
		if o.Phase == phase && o.Outcome == unknown && (len(kinds) == 0 || slices.Contains(kinds, o.Kind)) {
			n++
		}
	}
	return n
}

func (h *history) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return errors.Join(h.err, h.file.Close())
}
