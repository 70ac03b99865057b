package password_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/services/auth-service/internal/password"
)

var cheap = password.Params{MemoryKiB: 64, Passes: 1, Threads: 1}

func TestHashAndVerify(t *testing.T) {
	t.Parallel()
	h := password.NewHasher(password.Config{Params: cheap, Concurrency: 1, Queue: 10})
	hash, err := h.Hash(t.Context(), "correct horse")
	if err != nil || !strings.HasPrefix(hash, "$argon2id$v=19$m=64,t=1,p=1$") {
		t.Fatalf("Hash = %q, %v", hash, err)
	}
	again, err := h.Hash(t.Context(), "correct horse")
	if err != nil || again == hash {
		t.Errorf("the same salt twice: %q, %v", again, err)
	}
	six, err := bcrypt.GenerateFromPassword([]byte("correct horse"), 6)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("a", 72)
	full, err := bcrypt.GenerateFromPassword([]byte(long), 4)
	if err != nil {
		t.Fatal(err)
	}
	other := password.NewHasher(password.Config{Params: password.Params{MemoryKiB: 128, Passes: 1, Threads: 1}, Concurrency: 1, Queue: 10})
	for name, tc := range map[string]struct {
		hasher         *password.Hasher
		hash, password string
		ok, stale      bool
	}{
		"right":                                  {h, hash, "correct horse", true, false},
		"wrong":                                  {h, hash, "correct horse ", false, false},
		"no account":                             {h, "", "correct horse", false, false},
		"other costs":                            {other, hash, "correct horse", true, true},
		"bcrypt of an older system":              {h, string(six), "correct horse", true, true},
		"bcrypt, wrong":                          {h, string(six), "correct", false, true},
		"bcrypt, 72 bytes":                       {h, string(full), long, true, true},
		"bcrypt, one byte more than it reads":    {h, string(full), long + "x", true, false},
		"bcrypt, NUL, at which C libraries stop": {h, string(six), "correct horse\x00x", false, false},
	} {
		ok, stale, err := tc.hasher.Verify(t.Context(), tc.hash, tc.password)
		if err != nil || ok != tc.ok || ok && stale != tc.stale {
			t.Errorf("%s: Verify = %t, %t, %v, want %t, %t", name, ok, stale, err, tc.ok, tc.stale)
		}
	}
}

func TestVerifyRefusesMalformedHashes(t *testing.T) {
	t.Parallel()
	h := password.NewHasher(password.Config{Params: cheap, Concurrency: 1, Queue: 10})
	const salt, key = "c2FsdHNhbHQ", "a2V5a2V5a2V5a2V5a2V5a2V5a2V5"
	for _, hash := range []string{
		"plain", "$argon2id$", "$argon2id$v=16$m=64,t=1,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=64,t=1,p=0$" + salt + "$" + key, "$argon2id$v=19$m=64,t=1,p=1,x=1$" + salt + "$" + key,
		"$argon2d$v=19$m=64,t=1,p=1$" + salt + "$" + key, "$argon2id$m=64,t=1,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=64,t=1,p=1,data=YWJj$" + salt + "$" + key, "$argon2id$v=19$m=64,t=1,t=1,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=64,t=1$" + salt + "$" + key, "$argon2id$v=19$m=064,t=1,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=+64,t=1,p=1$" + salt + "$" + key, "$argon2id$v=19$m=64,t=1,p=256$" + salt + "$" + key,
		"$argon2id$v=19$m=64,t=1,p=1,$" + salt + "$" + key, "$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + key + "$",
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "==" + "$" + key, "$argon2id$v=19$m=64,t=1,p=1,keyid=$" + salt + "$" + key,
		"$argon2id$v=19$m=64,t=1,p=1$$" + key, "$argon2id$v=19$m=64,t=1,p=1$" + salt + "$", "$2a$99$short",
	} {
		if ok, _, err := h.Verify(t.Context(), hash, "x"); ok || err == nil {
			t.Errorf("Verify(%q) = %t, %v", hash, ok, err)
		}
	}
}

// Hashes of other programs: the order of the parameters is free, padding is accepted, and so
// is Argon2i. The next login replaces them only if their costs or their kind differ.
func TestVerifyHashesOfOtherPrograms(t *testing.T) {
	t.Parallel()
	h := password.NewHasher(password.Config{Params: password.Params{MemoryKiB: 4096, Passes: 2, Threads: 1}, Concurrency: 1, Queue: 10})
	const tail = "$c29tZXNhbHRzYWx0$0I1E7eBwQ+mT/4n3w8cAHX6gnYLqfX1HoW+fwLQO2do"
	for hash, stale := range map[string]bool{
		"$argon2id$v=19$m=4096,t=2,p=1" + tail:                                                      false,
		"$argon2id$v=19$m=4096,p=1,t=2" + tail:                                                      false,
		"$argon2id$v=19$t=2,m=4096,p=1" + tail:                                                      false,
		"$argon2id$v=19$p=1,t=2,m=4096" + tail + "=":                                                false,
		"$argon2i$v=19$m=4096,t=2,p=1$c29tZXNhbHRzYWx0$32ps/cf32FYpGQVJqGh4+lz/1Wp1JeE6yTydv/PSFX8": true,
	} {
		if err := h.CheckHash(hash); err != nil {
			t.Errorf("CheckHash(%s) = %v", hash, err)
		}
		if ok, again, err := h.Verify(t.Context(), hash, "Zebra-crossing 91"); !ok || again != stale || err != nil {
			t.Errorf("Verify(%s) = %t, stale %t, %v", hash, ok, again, err)
		}
		if ok, _, err := h.Verify(t.Context(), hash, "Zebra-crossing 92"); ok || err != nil {
			t.Errorf("Verify(%s) of another password = %t, %v", hash, ok, err)
		}
	}
}

// SEC-83: a full queue is answered at once.
func TestSEC83FullQueue(t *testing.T) {
	t.Parallel()
	h := password.NewHasher(password.Config{Params: password.Params{MemoryKiB: 16 << 10, Passes: 2, Threads: 1}, Concurrency: 1, Queue: 2})
	// Its process takes longer to start on a busy machine than requests wait.
	if _, err := h.Hash(t.Context(), "correct horse"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	results := make(chan error, 50)
	for range cap(results) {
		wg.Go(func() {
			_, err := h.Hash(t.Context(), "correct horse")
			results <- err
		})
	}
	wg.Wait()
	close(results)
	var done, busy int
	for err := range results {
		switch {
		case err == nil:
			done++
		case errors.Is(err, password.ErrBusy):
			busy++
		default:
			t.Errorf("Hash = %v", err)
		}
	}
	if done < 3 || busy == 0 {
		t.Errorf("%d hashed, %d busy; want at least 3 and some busy", done, busy)
	}
}

func TestSEC21To23Normalize(t *testing.T) {
	t.Parallel()
	if got, fault := password.Normalize("password", "ﬁsh"); got != "fish" || fault != nil {
		t.Errorf("Normalize = %q, %v", got, fault)
	}
	if got, fault := password.Normalize("password", strings.Repeat("🐟", 64)); fault != nil || got != strings.Repeat("🐟", 64) {
		t.Errorf("SEC-21: 64 code points = %v", fault)
	}
	for text, code := range map[string]string{
		"": "required", strings.Repeat("a", 1025): "too_long", "a\x00b": "invalid_format", "a\nb": "invalid_format", "a\xffb": "invalid_format",
		strings.Repeat("ﷺ", 340): "too_long", // grows when normalized
	} {
		if _, fault := password.Normalize("password", text); fault == nil || fault.Code != code {
			t.Errorf("Normalize(%.20q) = %v, want %s", text, fault, code)
		}
	}
}

// With bcrypt, passwords that it would truncate are refused.
func TestNewBcryptHashes(t *testing.T) {
	t.Parallel()
	argon := password.NewHasher(password.Config{Params: cheap, Concurrency: 1, Queue: 10})
	h := password.NewHasher(password.Config{Params: cheap, BcryptCost: 5, Concurrency: 1, Queue: 10})
	if h.MaxBytes() != 72 || argon.MaxBytes() != password.MaxBytes {
		t.Errorf("MaxBytes = %d and %d, want 72 and %d", h.MaxBytes(), argon.MaxBytes(), password.MaxBytes)
	}
	hash, err := h.Hash(t.Context(), "correct horse")
	if cost, costErr := bcrypt.Cost([]byte(hash)); err != nil || costErr != nil || cost != 5 {
		t.Fatalf("Hash = %q, %v", hash, err)
	}
	four, err := bcrypt.GenerateFromPassword([]byte("correct horse"), 4)
	if err != nil {
		t.Fatal(err)
	}
	other, err := argon.Hash(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	for hash, stale := range map[string]bool{hash: false, string(four): true, other: true} {
		if ok, again, err := h.Verify(t.Context(), hash, "correct horse"); !ok || again != stale || err != nil {
			t.Errorf("Verify(%q) = %t, %t, %v, want stale %t", hash, ok, again, err, stale)
		}
		if ok, _, err := h.Verify(t.Context(), hash, "another horse"); ok || err != nil {
			t.Errorf("Verify(%q) with another password = %t, %v", hash, ok, err)
		}
	}
}

// SEC-26: with imported bcrypt hashes, the time of a mismatch reveals neither which
// addresses have an account nor which were imported.
//
//nolint:paralleltest // Parallel tests would distort the measurement.
func TestSEC26MismatchesTakeTheSameTime(t *testing.T) {
	h := password.NewHasher(password.Config{Params: password.Params{MemoryKiB: 1024, Passes: 2, Threads: 1}, Concurrency: 1, Queue: 10})
	h.SetStored(6, nil)
	own, err := h.Hash(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	hashes := map[string]string{"nobody": "", "argon2id": own}
	for name, cost := range map[string]int{"bcrypt 4": 4, "bcrypt 6": 6} {
		hash, err := bcrypt.GenerateFromPassword([]byte("correct horse"), cost)
		if err != nil {
			t.Fatal(err)
		}
		hashes[name] = string(hash)
	}
	wantEqualTimes(t, h, hashes, 15)
}

// wantEqualTimes verifies a wrong password against each hash, by name, in at least some
// rounds. The test fails unless all take the same time.
func wantEqualTimes(t *testing.T, h *password.Hasher, hashes map[string]string, rounds int) {
	t.Helper()
	// Take the shortest of many CPU times: other load on the machine only adds to them,
	// so more rounds bring them closer if the work is the same.
	shortest := map[string]time.Duration{}
	for round := range 100 {
		for name, hash := range hashes {
			started := processorTime(t)
			if ok, _, err := h.Verify(t.Context(), hash, "another horse"); ok || err != nil {
				t.Fatalf("%s: Verify = %t, %v", name, ok, err)
			}
			took := processorTime(t) - started
			if best, ok := shortest[name]; !ok || took < best {
				shortest[name] = took
			}
		}
		if round >= rounds && unequal(shortest) == "" {
			return
		}
	}
	t.Error(unequal(shortest))
}

// unequal says which time differs from that of nobody by more than a fifth, if any.
func unequal(times map[string]time.Duration) string {
	nobody := times["nobody"]
	for name, took := range times {
		if (took - nobody).Abs() > nobody/5 {
			return fmt.Sprintf("%s took %s, nobody %s", name, took, nobody)
		}
	}
	return ""
}

// processorTime returns the CPU time of this process.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func FuzzVerify(f *testing.F) {
	f.Add("$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$a2V5a2V5a2V5a2V5a2V5a2V5a2V5")
	f.Add("$2a$04$abcdefghijklmnopqrstuv")
	h := password.NewHasher(password.Config{Params: cheap, Concurrency: 2, Queue: 10})
	f.Fuzz(func(t *testing.T, hash string) {
		// Verify must return for every stored hash. Hashes whose cost would take minutes
		// are refused at import.
		if strings.Contains(hash, "$2") || len(hash) > 200 || strings.Contains(hash, "$pbkdf2") || strings.Contains(hash, "m=") && !strings.Contains(hash, "m=64,t=1,p=1$") {
			return
		}
		if ok, _, _ := h.Verify(t.Context(), hash, "x"); ok && hash != "" {
			t.Logf("a hash of x: %q", hash)
		}
	})
}

// With a pepper, a stolen database alone is useless for guessing. Hashes without the
// current pepper are stale.
func TestPepper(t *testing.T) {
	t.Parallel()
	const first, second = "k1:0123456789abcdefghijklmnopqrstuv", "k2:abcdefghijklmnopqrstuv0123456789"
	hasher := func(peppers string) *password.Hasher {
		if peppers == "" {
			return password.NewHasher(password.Config{Params: cheap, Concurrency: 1, Queue: 10})
		}
		parsed, err := service.ParseKeys("PEPPERS", service.Secret(peppers))
		if err != nil {
			t.Fatal(err)
		}
		return password.NewHasher(password.Config{Params: cheap, Peppers: parsed, Concurrency: 1, Queue: 10})
	}
	hash := func(h *password.Hasher) string {
		made, err := h.Hash(t.Context(), "correct horse")
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	plain, one, two := hash(hasher("")), hash(hasher(first)), hash(hasher(second))
	if !strings.Contains(one, "$m=64,t=1,p=1,keyid=k1$") {
		t.Errorf("hash = %s", one)
	}
	for name, tc := range map[string]struct {
		hasher    *password.Hasher
		hash      string
		ok, stale bool
		fails     bool
	}{
		"its own":               {hasher(first), one, true, false, false},
		"before there was one":  {hasher(first), plain, true, true, false},
		"an older one":          {hasher(second + "," + first), one, true, true, false},
		"the newer one":         {hasher(second + "," + first), two, true, false, false},
		"one that is not there": {hasher(second), one, false, false, true},
		"none is there":         {hasher(""), one, false, false, true},
	} {
		ok, stale, err := tc.hasher.Verify(t.Context(), tc.hash, "correct horse")
		if ok != tc.ok || ok && stale != tc.stale || (err != nil) != tc.fails {
			t.Errorf("%s: Verify = %t, %t, %v", name, ok, stale, err)
		}
		if ok, _, _ := tc.hasher.Verify(t.Context(), tc.hash, "another horse"); ok {
			t.Errorf("%s: a wrong password fits", name)
		}
	}
}

func TestCheckHash(t *testing.T) {
	t.Parallel()
	h := password.NewHasher(password.Config{Params: cheap, Concurrency: 1, Queue: 10})
	own, err := h.Hash(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	crypt, err := bcrypt.GenerateFromPassword([]byte("x"), 4)
	if err != nil {
		t.Fatal(err)
	}
	for hash, good := range map[string]bool{own: true, string(crypt): true, "": false, "x": false, "$2b$10$short": false, string(crypt[:59]): false} {
		if err := password.NewHasher(password.Config{}).CheckHash(hash); (err == nil) != good {
			t.Errorf("CheckHash(%q) = %v", hash, err)
		}
	}
}

// SEC-105: an imported hash cannot demand any memory or time that its author likes. A hash
// with higher costs than that, which an earlier release may have stored, matches nothing.
func TestSEC105CostsOfStoredHashesAreBounded(t *testing.T) {
	t.Parallel()
	h := password.NewHasher(password.Config{Params: cheap, Concurrency: 1, Queue: 10})
	argon := func(costs string) string {
		return "$argon2id$v=19$" + costs + "$c2FsdHNhbHQ$a2V5a2V5a2V5a2V5a2V5a2V5a2V5"
	}
	rest := strings.Repeat("a", 53)
	for hash, affordable := range map[string]bool{
		argon("m=19456,t=2,p=1"):        true, // OWASP
		argon("m=65536,t=3,p=4"):        true, // RFC 9106, second choice; argon2-cffi
		argon("m=65536,t=4,p=1"):        true, // PHP
		argon("m=102400,t=2,p=8"):       true, // Django
		argon("m=131072,t=2,p=1"):       true,
		argon("m=131073,t=1,p=1"):       false,
		argon("m=131072,t=3,p=1"):       false,
		argon("m=1048576,t=64,p=1"):     false,
		argon("m=8,t=4294967295,p=1"):   false,
		argon("m=8,t=38912,p=255"):      false, // each thread takes 8 KiB at least
		argon("m=2040,t=19,p=255"):      true,
		argon("m=2039,t=19,p=255"):      false,
		argon("m=4294967295,t=1,p=255"): false,
		"$2b$16$" + rest:                true,
		"$2b$17$" + rest:                false,
		"$2b$31$" + rest:                false,
	} {
		if err := h.CheckHash(hash); (err == nil) != affordable {
			t.Errorf("CheckHash(%q) = %v", hash, err)
			continue
		}
		if affordable {
			continue
		}
		if ok, _, err := h.Verify(t.Context(), hash, "x"); ok || err != nil {
			t.Errorf("Verify(%q) = %t, %v", hash, ok, err)
		}
	}
}

// An import stores what CheckHash accepts, so Verify must be able to read it.
func FuzzCheckHash(f *testing.F) {
	f.Add("$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$a2V5a2V5a2V5a2V5a2V5a2V5a2V5")
	f.Add("$argon2id$v=19$m=64,t=1,p=1,keyid=k1$c2FsdHNhbHQ$a2V5a2V5a2V5a2V5a2V5a2V5a2V5")
	f.Add("$pbkdf2-sha256$i=1000,l=16$c2FsdHNhbHQ$a2V5a2V5a2V5a2V5a2V5aw")
	f.Add("$fbscrypt$v=1,n=8,r=4,p=1,ss=Bw==,keyid=fb$42xEC+ixf3L2lw==$a2V5a2V5a2V5a2V5a2V5aw")
	f.Add("$argon2i$v=19$p=1,t=1,m=64$c2FsdHNhbHQ=$a2V5a2V5a2V5a2V5a2V5a2V5a2V5")
	f.Add("$2a$04$abcdefghijklmnopqrstuuZ5Zr3B9SpiYvm4XnPzGTzXrBzZ5Zr3B")
	f.Fuzz(func(t *testing.T, hash string) {
		if password.NewHasher(password.Config{}).CheckHash(hash) == nil && (len(hash) > 512 || strings.ContainsAny(hash, "\x00\n")) {
			t.Errorf("CheckHash(%q) accepts it", hash)
		}
	})
}
