package service_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/service"
)

const (
	oldKey = "0123456789abcdefghijklmnopqrstuv"
	newKey = "ABCDEFGHIJKLMNOPQRSTUVWXYZ:=+/99"
)

// A key list keeps what was made with any of its keys valid; a plain secret is the list of
// one key, as before there were lists.
func TestSEC124KeyLists(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]service.Keys{
		oldKey:                                       {{ID: service.DefaultKey, Secret: oldKey}},
		oldKey + ",without,an,id":                    {{ID: service.DefaultKey, Secret: oldKey + ",without,an,id"}},
		"default:" + oldKey:                          {{ID: service.DefaultKey, Secret: oldKey}},
		"b:" + newKey + ", a:" + oldKey + "\n":       {{ID: "b", Secret: newKey}, {ID: "a", Secret: oldKey}},
		"2026-01_x:" + newKey + ",default:" + oldKey: {{ID: "2026-01_x", Secret: newKey}, {ID: service.DefaultKey, Secret: oldKey}},
	} {
		keys, err := service.ParseKeys("KEY", service.Secret(text))
		if err != nil || !slices.Equal(keys, want) {
			t.Errorf("ParseKeys(%q) has %d keys, %v", text, len(keys), err)
		}
	}
	for name, bad := range map[string]string{
		"empty":              "",
		"short":              "short",
		"weak in the list":   "b:" + newKey + ",a:changeme" + oldKey,
		"short in the list":  "b:" + newKey + ",a:x",
		"no id":              "b:" + newKey + "," + oldKey,
		"empty id":           ":" + newKey,
		"id with a space":    "a b:" + newKey,
		"id with a dot":      "a.b:" + newKey,
		"long id":            strings.Repeat("a", 33) + ":" + newKey,
		"id twice":           "a:" + newKey + ",a:" + oldKey,
		"secret twice":       "a:" + newKey + ",b:" + newKey,
		"trailing comma":     "a:" + newKey + ",",
		"leading comma":      ",a:" + newKey,
		"a colon in a plain": "x$" + newKey,
	} {
		keys, err := service.ParseKeys("SOME_KEY", service.Secret(bad))
		if err == nil || !strings.HasPrefix(err.Error(), "SOME_KEY") {
			t.Errorf("%s: ParseKeys = %d keys, %v", name, len(keys), err)
			continue
		}
		for _, secret := range []string{oldKey, newKey, "changeme"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error has a secret: %v", name, err)
			}
		}
	}
}

func TestSEC124OneSecretHasOneUse(t *testing.T) {
	t.Parallel()
	one, two := service.PlainKey(oldKey), service.Keys{{ID: "b", Secret: newKey}, {ID: "a", Secret: oldKey}}
	if service.Disjoint(one, two) || !service.Disjoint(one, service.PlainKey(newKey)) || !service.Disjoint(one) {
		t.Error("lists that share a secret are not recognized")
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add(oldKey)
	f.Add("b:" + newKey + ",a:" + oldKey)
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := service.ParseKeys("KEY", service.Secret(text))
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, key := range keys {
			if seen[key.ID] || strings.ContainsAny(key.ID, "$,=.: \n") || len(key.Secret) < 32 {
				t.Errorf("ParseKeys(%q) has the id %q", text, key.ID)
			}
			seen[key.ID] = true
		}
		if len(keys) == 0 {
			t.Errorf("ParseKeys(%q) has no key and no error", text)
		}
	})
}
