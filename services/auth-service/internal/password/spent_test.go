package password_test

import (
	"maps"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/services/auth-service/internal/password"
)

// SEC-26, SEC-147: a mismatch spends the same on every hash, and on an address without an
// account. That holds for a password that is not normalized, too, which is checked in both
// forms against an imported hash.
func TestSEC26MismatchesSpendTheSame(t *testing.T) {
	t.Parallel()
	signers, err := service.ParseKeys("SIGNERS", service.Secret("fb:"+signerKey))
	if err != nil {
		t.Fatal(err)
	}
	spent := map[string]int{}
	h := password.NewHasher(password.CountSpent(password.Config{Params: cheap, Signers: signers, Concurrency: 1, Queue: 10},
		func(algorithm string, cost int) { spent[algorithm] += cost }))
	own, err := h.Hash(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	hashes := map[string]string{"nobody": "", "argon2id": own, "of a cost that is too high": "$2a$17$" + strings.Repeat("a", 53)}
	for name, cost := range map[string]int{"bcrypt 4": 4, "bcrypt 6": 6} {
		hash, err := bcrypt.GenerateFromPassword([]byte("correct horse"), cost)
		if err != nil {
			t.Fatal(err)
		}
		hashes[name] = string(hash)
	}
	var parameters []string
	for hash := range foreignHashes {
		if kind := strings.Join(strings.Split(hash, "$")[1:3], "$"); !strings.Contains(kind, "r=8") {
			hashes[kind], parameters = hash, append(parameters, kind)
		}
	}
	for _, name := range []string{"only new hashes", "imported hashes"} {
		if name == "imported hashes" {
			h.SetStored(6, append(parameters, "pbkdf2$i=5000"))
		}
		for _, wrong := range []string{"another horse", "anothe\u0301r horse"} {
			clear(spent)
			if ok, _, err := h.Verify(t.Context(), "", wrong); ok || err != nil {
				t.Fatalf("Verify() = %t, %v", ok, err)
			}
			nobody := maps.Clone(spent)
			for hashName, hash := range hashes {
				if name == "only new hashes" && hash != "" && hash != own {
					continue
				}
				clear(spent)
				if ok, _, err := h.Verify(t.Context(), hash, wrong); ok || err != nil {
					t.Fatalf("%s: Verify = %t, %v", hashName, ok, err)
				}
				if !maps.Equal(spent, nobody) {
					t.Errorf("%s, %q, %s: spent %v, without an account %v", name, wrong, hashName, spent, nobody)
				}
			}
		}
	}
}
