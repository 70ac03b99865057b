package store_test

import (
	"encoding/json"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/services/user-service/internal/store"
)

// FuzzEntry is REL-102: whatever an entry contains, only a profile of its user in the current
// generation is served.
func FuzzEntry(f *testing.F) {
	const userID = "01a20b47-a923-7f3e-ba6c-36d6c0ae6def"
	cache := newCache(redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}))
	good := `{"version":3,"generation":"` + generation + `","lease":"x","profile":{"userId":"` + userID + `","name":"Ann","preferences":{},"createdAt":"2026-01-31T12:00:00Z"}}`
	for _, seed := range []string{good, good[:len(good)/2], `{"version":1}`, `{"version":1,"generation":"` + generation + `","missing":"absent"}`, "", "[]", "null"} {
		f.Add([]byte(seed))
	}
	if p, ok := store.ParseEntry(cache, userID, []byte(good)); !ok || p.Version != 3 || p.Name != "Ann" {
		f.Fatalf("a good entry = %+v, %v", p, ok)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		p, ok := store.ParseEntry(cache, userID, value)
		var e struct{ Generation string }
		if ok && (p.UserID != userID || p.Version < 1 || json.Unmarshal(value, &e) != nil || e.Generation != generation) {
			t.Errorf("%q is served: %+v", value, p)
		}
	})
}

// FuzzRenewal parses replies of every shape.
func FuzzRenewal(f *testing.F) {
	for _, seed := range []string{
		`["0-0"]`, `["",[["1-1",["stripe","7","from","01a20b47-a923-7f3e-ba6c-36d6c0ae6def","number","1"]]],[]]`,
		`["",[["1-1",["stripe"]]],[]]`, `["",[[1,[]]],[]]`, `["",[],{}]`, `[]`, `[1]`, `{}`, `null`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var reply any
		if json.Unmarshal([]byte(text), &reply) != nil {
			return
		}
		list, _ := reply.([]any)
		if store.ParseRenewal(reply) && len(list) == 0 {
			t.Errorf("%s is complete", text)
		}
	})
}
