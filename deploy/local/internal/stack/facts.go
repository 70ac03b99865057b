package stack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// factsName is the file that describes the running stack, for scripts.
const factsName = "stack.json"

// Facts describes the running stack, as in stack.json.
type Facts struct {
	GatewayURL   string            `json:"gatewayUrl"`
	MailboxURL   string            `json:"mailboxUrl"`
	Admin        Admin             `json:"admin"`
	ServiceURLs  map[string]string `json:"serviceUrls"`
	DatabaseURLs map[string]string `json:"databaseUrls"`
	RedisURL     string            `json:"redisUrl"`
	SMTPURL      string            `json:"smtpUrl"`
	Pids         map[string]int    `json:"pids"`
}

// Admin is the first administrator's account.
type Admin struct {
	Email    string `json:"email"`
	Password string `json:"password"`
}

// factsFile is the file stack.json. It exists from publish until withdraw.
type factsFile struct {
	path string
	pids func() map[string]int

	mu    sync.Mutex
	facts *Facts
}

// publish writes the facts.
func (f *factsFile) publish(facts Facts) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.facts = &facts
	return f.write()
}

// refresh updates the process ids, if the facts are published.
func (f *factsFile) refresh() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.facts == nil {
		return nil
	}
	return f.write()
}

// withdraw removes the file, also if a launcher that crashed has left it.
func (f *factsFile) withdraw() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.facts = nil
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", factsName, err)
	}
	return nil
}

func (f *factsFile) write() error {
	f.facts.Pids = f.pids()
	data, err := json.MarshalIndent(f.facts, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", factsName, err)
	}
	if err := writeFile(f.path, append(data, '\n')); err != nil {
		return fmt.Errorf("write %s: %w", factsName, err)
	}
	return nil
}

// writeFile replaces the file atomically; only its owner can read it.
func writeFile(path string, content []byte) error {
	draft, err := os.CreateTemp(filepath.Dir(path), ".draft-*")
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name()) // After the rename there is nothing to remove.
	_, err = draft.Write(content)
	if err = errors.Join(err, draft.Close()); err != nil {
		return err
	}
	return os.Rename(draft.Name(), path)
}
