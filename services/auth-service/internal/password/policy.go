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

// MaxBytes bounds what is hashed (SEC-22).
const MaxBytes = 1024

// Normalize returns the form of a password that is hashed (NFKC, NIST SP
// 800-63B 3.1.1.2), or a fault if it can be no password at all: empty, longer
// than MaxBytes, not UTF-8 or with control characters. Nothing is ever cut off.
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

// normal changes nothing that Normalize returned.
func normal(text string) string { return norm.NFKC.String(text) }

// Weak reports whether a normalized password is among those that attackers try
// first, or is one of the words around the account, such as its address.
func Weak(text string, around ...string) bool {
	folded := strings.ToLower(text)
	if common().has(folded) {
		return true
	}
	for _, word := range append(around, "headgate") {
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

// wordSet holds the hashes of words instead of the words: without pointers there
// is nothing in it for the garbage collector to look through, which runs for
// every second password that is hashed. That 64 bits take a word for another one
// will not happen, and would refuse one password too many.
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
