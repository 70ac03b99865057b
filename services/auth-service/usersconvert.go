package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/dump"
)

const convertUsage = "users convert -from auth0|firebase|keycloak|supabase [-hashes FILE] [-hash-config FILE] [-key-id ID] FILE > users.ndjson"

// convertUsers is the command "users convert". It writes what importUsers reads to standard
// output, and what cannot be carried over to standard error.
func convertUsers(_ context.Context, args []string) error {
	var c converter
	operands, err := parse(convertUsage, args, func(f *flag.FlagSet) {
		f.StringVar(&c.from, "from", "", "")
		f.StringVar(&c.hashes, "hashes", "", "")
		f.StringVar(&c.hashConfig, "hash-config", "", "")
		f.StringVar(&c.keyID, "key-id", "", "")
	})
	if err != nil {
		return err
	}
	switch {
	case !slices.Contains([]string{"auth0", "firebase", "keycloak", "supabase"}, c.from):
		return fmt.Errorf("-from: unknown source %q; usage: auth-service %s", c.from, convertUsage)
	case len(operands) != 1:
		return errors.New("usage: auth-service " + convertUsage)
	case c.from == "firebase" && c.hashConfig == "":
		return errors.New("-hash-config is required for firebase: a file with the hash parameters as the Firebase console shows them")
	}
	if c.keyID != "" && !service.KeyID(c.keyID) {
		return errors.New("-key-id: want 1 to 32 of a-z, A-Z, 0-9, - and _")
	}
	in, err := os.Open(operands[0])
	if err != nil {
		return err
	}
	defer in.Close()
	w := bufio.NewWriter(os.Stdout)
	c.encode, c.lost = json.NewEncoder(w), map[dump.Loss]int{}
	c.encode.SetEscapeHTML(false)
	err = errors.Join(c.convert(in), w.Flush())
	switch {
	case err != nil && c.converted > 0:
		return fmt.Errorf("convert %s: %w; the output is incomplete: do not import it", operands[0], err)
	case err != nil:
		return fmt.Errorf("convert %s: %w", operands[0], err)
	}
	c.summarize(os.Stderr)
	return nil
}

type converter struct {
	from, hashes, hashConfig, keyID string

	encode             *json.Encoder
	converted, leftOut int
	lost               map[dump.Loss]int
}

func (c *converter) convert(in io.Reader) error {
	out := dump.Out{
		User: c.write,
		LeftOut: func(at, user, reason string) {
			c.leftOut++
			fmt.Fprintf(os.Stderr, "left out: %s: %q: %s\n", at, user, reason)
		},
		Lost: func(what dump.Loss) { c.lost[what]++ },
	}
	switch c.from {
	case "keycloak":
		return dump.Keycloak(in, out)
	case "supabase":
		return dump.Supabase(in, c.keyID, time.Now(), out)
	case "firebase":
		config, err := os.ReadFile(c.hashConfig)
		if err != nil {
			return fmt.Errorf("-hash-config: %w", err)
		}
		hashes, err := dump.ParseFirebaseHashes(string(config), cmp.Or(c.keyID, "firebase"))
		if err != nil {
			return fmt.Errorf("-hash-config: %w", err)
		}
		fmt.Fprintf(os.Stderr, "before the import, set FIREBASE_SIGNER_KEYS to %s:KEY for the import and the running service, where KEY is base64_signer_key of %s\n", hashes.KeyID, c.hashConfig)
		return dump.Firebase(in, hashes, out)
	case "auth0":
		if c.hashes == "" {
			return dump.Auth0(in, dump.Auth0Hashes{}, out)
		}
		file, err := os.Open(c.hashes)
		if err != nil {
			return fmt.Errorf("-hashes: %w", err)
		}
		defer file.Close()
		hashes, err := dump.IndexAuth0Hashes(file)
		if err != nil {
			return fmt.Errorf("-hashes: %w", err)
		}
		return dump.Auth0(in, hashes, out)
	}
	return errors.New("usage: auth-service " + convertUsage)
}

func (c *converter) write(u dump.User) error {
	r := record{
		ID: u.ID, SourceID: u.SourceID, Email: u.Email, EmailVerified: u.EmailVerified, Name: u.Name, PasswordHash: u.PasswordHash,
	}
	if u.Disabled {
		r.Status = account.Disabled
	}
	if !u.CreatedAt.IsZero() {
		r.CreatedAt = &u.CreatedAt
	}
	c.converted++
	return c.encode.Encode(r)
}

func (c *converter) summarize(w io.Writer) {
	fmt.Fprintf(w, "users converted: %d, left out: %d\n", c.converted, c.leftOut)
	for _, what := range slices.Sorted(maps.Keys(c.lost)) {
		fmt.Fprintf(w, "%s: %d\n", what, c.lost[what])
	}
}
