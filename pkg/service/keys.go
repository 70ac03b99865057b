package service

import (
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strings"
)

// Key is a secret with an id. What was made with it, such as a token or a sealed value,
// names the id, so that it is still accepted when another key is in use.
type Key struct {
	ID     string
	Secret Secret
}

// Keys is a list of keys. The first is for new things; all are for existing ones.
type Keys []Key

// DefaultKey is the id of a key that was configured without one. What names no key was
// made with it.
const DefaultKey = "default"

var keyID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

// KeyID reports whether text can be the id of a key.
func KeyID(text string) bool { return keyID.MatchString(text) }

// PlainKey returns the list of one key that has no id of its own.
func PlainKey(secret Secret) Keys { return Keys{{ID: DefaultKey, Secret: secret}} }

// ParseKeys parses the value of a variable: one secret, or a comma-separated list of
// id:secret. Each secret must be Strong and each id and secret unique. The error names the
// variable and no secret.
func ParseKeys(variable string, text Secret) (Keys, error) {
	if !strings.Contains(text.Reveal(), ":") {
		return PlainKey(text), Strong(variable, text)
	}
	var keys Keys
	for part := range strings.SplitSeq(text.Reveal(), ",") {
		id, secret, _ := strings.Cut(strings.TrimSpace(part), ":")
		key := Key{ID: id, Secret: Secret(secret)}
		if !KeyID(id) {
			return nil, fmt.Errorf("%s: use one secret, or a comma-separated list of id:secret; an id has 1 to 32 of a-z, A-Z, 0-9, - and _ (a single secret with a colon needs the id %s)", variable, DefaultKey)
		}
		if slices.ContainsFunc(keys, func(other Key) bool { return other.ID == key.ID || other.Secret == key.Secret }) {
			return nil, fmt.Errorf("%s: key %d repeats an id or a secret", variable, len(keys)+1)
		}
		if err := Strong(fmt.Sprintf("%s, key %d", variable, len(keys)+1), key.Secret); err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// Find returns the key with an id.
func (k Keys) Find(id string) (Key, bool) {
	i := slices.IndexFunc(k, func(key Key) bool { return key.ID == id })
	if i < 0 {
		return Key{}, false
	}
	return k[i], true
}

// Reveal returns the ids and secrets themselves, for packages that cannot import this one.
// The id of DefaultKey is empty, as in what names no key.
func (k Keys) Reveal() iter.Seq2[string, string] {
	return func(yield func(id, secret string) bool) {
		for _, key := range k {
			id := key.ID
			if id == DefaultKey {
				id = ""
			}
			if !yield(id, key.Secret.Reveal()) {
				return
			}
		}
	}
}

// Disjoint reports whether no two lists share a secret.
func Disjoint(lists ...Keys) bool {
	seen := map[Secret]int{}
	for i, keys := range lists {
		for _, key := range keys {
			if other, ok := seen[key.Secret]; ok && other != i {
				return false
			}
			seen[key.Secret] = i
		}
	}
	return true
}
