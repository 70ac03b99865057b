package password

import (
	"encoding/json"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/ccojocar/zxcvbn-go/data"
	"golang.org/x/text/unicode/norm"

	"github.com/headgate/headgate/pkg/problem"
)

// MaxBytes limits the length of passwords, because hashing takes time and memory (SEC-22).
const MaxBytes = 1024

// Normalize returns the normalized form of a password (NFKC, NIST SP 800-63B 3.1.1.2),
// which is what is hashed. It returns a field error for a password that is empty, longer
// than MaxBytes, not UTF-8, or has control characters. It never truncates.
func Normalize(field, text string) (string, *problem.Field) {
	switch {
	case text == "":
		return "", &problem.Field{Field: field, Code: "required", Message: "Password is required."}
	case len(text) > MaxBytes:
		return "", &problem.Field{Field: field, Code: "too_long", Message: "Password must not be longer than 1024 bytes."}
	case !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
		return "", &problem.Field{Field: field, Code: "invalid_format", Message: "Password must not contain control characters."}
	}
	text = normal(text)
	if len(text) > MaxBytes {
		return "", &problem.Field{Field: field, Code: "too_long", Message: "Password must not be longer than 1024 bytes."}
	}
	return text, nil
}

// normal normalizes a password. It is idempotent.
func normal(text string) string { return norm.NFKC.String(text) }

// Weak reports whether a normalized password is among those that attackers try first:
// common ones, and words that belong to the account, such as its address.
func Weak(text string, accountWords ...string) bool {
	folded := strings.ToLower(text)
	if common().has(folded) {
		return true
	}
	for _, word := range append(accountWords, "headgate") {
		if word != "" && folded == strings.ToLower(word) {
			return true
		}
	}
	distinct := map[rune]bool{}
	for _, r := range folded {
		distinct[r] = true
	}
	return len(distinct) < 3
}

// wordSet stores hashes of words instead of the words. It contains no pointers, so the
// garbage collector, which runs for every second password hashed, need not scan it. A
// collision of 64 bits is unlikely, and would only refuse one password too many.
type wordSet struct {
	seed   maphash.Seed
	hashes map[uint64]struct{}
}

func (s wordSet) has(word string) bool {
	_, ok := s.hashes[maphash.String(s.seed, word)]
	return ok
}

// common is the list of passwords that people choose most, about 47,000.
var common = sync.OnceValue(func() wordSet {
	raw, err := data.Asset("data/Passwords.json")
	if err != nil {
		panic(fmt.Sprintf("read common passwords: %v", err)) // It is part of the program.
	}
	var list struct{ List []string }
	if err := json.Unmarshal(raw, &list); err != nil {
		panic(fmt.Sprintf("read common passwords: %v", err))
	}
	set := wordSet{maphash.MakeSeed(), make(map[uint64]struct{}, len(list.List))}
	for _, word := range list.List {
		set.hashes[maphash.String(set.seed, strings.ToLower(word))] = struct{}{}
	}
	return set
})
