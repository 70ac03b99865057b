package password

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // PBKDF2 of older systems uses it, as an HMAC.
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"golang.org/x/crypto/scrypt"
)

// Hashes that only imports store. The next login replaces them.
//
//	$pbkdf2-sha256$i=27500,l=64$salt$hash              PBKDF2 (RFC 8018); also -sha512, or pbkdf2 for SHA-1
//	$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,keyid=id$salt$hash   Firebase, with a signer key from Config.Signers
const (
	firebaseID = "fbscrypt"
	// The maximum costs, like those of Argon2: a login takes at most about eight times as
	// long as with Standard. They allow the defaults of all releases of Keycloak and
	// Django, and the costs that Firebase uses.
	maxScryptWork = 1 << 19 // N times r; it takes 128 bytes of memory for each
)

type digest struct {
	new           func() hash.Hash
	size          int
	maxIterations int
}

var digests = map[string]digest{
	"pbkdf2":        {sha1.New, sha1.Size, 1_500_000},
	"pbkdf2-sha256": {sha256.New, sha256.Size, 1_300_000},
	"pbkdf2-sha512": {sha512.New, sha512.Size, 1_000_000},
}

// foreign is a parsed hash of PBKDF2 or Firebase.
type foreign struct {
	phc

	iterations int // of PBKDF2
	n, r       int // of scrypt, whose N is 1<<n
	separator  []byte
	signer     []byte
}

func isForeign(hash string) bool {
	return strings.HasPrefix(hash, "$pbkdf2") || strings.HasPrefix(hash, "$"+firebaseID+"$")
}

// parseForeign parses a hash. It fails with errCost if it is too expensive.
func (e localEngine) parseForeign(text string) (foreign, error) {
	s, err := parsePHC(text)
	if err != nil || s.version != 0 || len(s.salt) == 0 {
		return foreign{}, errHash
	}
	f := foreign{phc: s}
	if s.id == firebaseID {
		err = e.parseFirebase(&f)
	} else {
		err = f.parsePBKDF2()
	}
	if err != nil {
		return foreign{}, err
	}
	if len(s.params) > 0 {
		return foreign{}, errHash
	}
	return f, nil
}

func (f *foreign) parsePBKDF2() error {
	d, known := digests[f.id]
	iterations, err := f.number("i", 31)
	if !known || err != nil || iterations < 1 || len(f.hash) < 16 {
		return errHash
	}
	if length, ok := f.take("l"); ok && length != strconv.Itoa(len(f.hash)) {
		return errHash
	}
	if iterations > uint64(d.maxIterations) { //nolint:gosec // It is positive.
		return errCost
	}
	f.iterations = int(iterations) //nolint:gosec // It has 31 bits.
	return nil
}

func (e localEngine) parseFirebase(f *foreign) error {
	version, _ := f.take("v")
	n, nErr := f.number("n", 8)
	r, rErr := f.number("r", 8)
	parallel, _ := f.take("p")
	separator, _ := f.take("ss")
	id, _ := f.take("keyid")
	if version != "1" || nErr != nil || rErr != nil || n < 1 || r < 1 || parallel != "1" {
		return errHash
	}
	if n > 19 || r<<n > maxScryptWork {
		return errCost
	}
	f.n, f.r = int(n), int(r) //nolint:gosec // They have 8 bits.
	var err error
	if f.separator, err = decodeBase64(separator); err != nil {
		return errHash
	}
	signer, ok := e.cfg.Signers.Find(id)
	if !ok {
		return fmt.Errorf("%w: FIREBASE_SIGNER_KEYS has no %q", errHash, id)
	}
	if f.signer, err = decodeBase64(signer.Secret.Reveal()); err != nil || len(f.signer) != len(f.hash) {
		return fmt.Errorf("%w: the signer key %q is not that of the hash", errHash, id)
	}
	return nil
}

// matches reports whether a password has the hash.
func (f foreign) matches(password string) (bool, error) {
	if f.id == firebaseID {
		return f.matchesFirebase(password)
	}
	// The blocks of a longer hash are independent of one another: the first proves the
	// password, and each further one would only take as long again.
	d := digests[f.id]
	n := min(len(f.hash), d.size)
	key, err := pbkdf2.Key(d.new, password, f.salt, f.iterations, n)
	if err != nil {
		return false, fmt.Errorf("compute PBKDF2: %w", err)
	}
	return subtle.ConstantTimeCompare(key, f.hash[:n]) == 1, nil
}

// matchesFirebase encrypts the signer key with the key that scrypt derives from the password
// (github.com/firebase/scrypt).
func (f foreign) matchesFirebase(password string) (bool, error) {
	salt := append(append([]byte{}, f.salt...), f.separator...)
	key, err := scrypt.Key([]byte(password), salt, 1<<f.n, f.r, 1, 32)
	if err != nil {
		return false, fmt.Errorf("compute scrypt: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return false, fmt.Errorf("compute Firebase hash: %w", err)
	}
	sum := make([]byte, len(f.signer))
	cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(sum, f.signer) //nolint:gosec // The algorithm has no IV: each key encrypts one text.
	return subtle.ConstantTimeCompare(sum, f.hash) == 1, nil
}

// costs returns what a check of the hash takes.
func (f foreign) costs() Costs {
	if f.id == firebaseID {
		return Costs{ScryptN: f.n, ScryptR: f.r}
	}
	return Costs{Iterations: map[string]int{f.id: f.iterations}}
}

// checkForeign reports whether password matches hash, and what it spent.
func (e localEngine) checkForeign(hash, password string) (ok bool, spent Costs, err error) {
	f, err := e.parseForeign(hash)
	if err != nil {
		return false, Costs{}, err
	}
	e.cfg.spend(f.id, f.iterations+f.r<<f.n)
	ok, err = f.matches(password)
	return ok, f.costs(), err
}

// Costs are the costs of checking hashes: one of each kind. Zero stands for none.
type Costs struct {
	Bcrypt           int
	Iterations       map[string]int // of PBKDF2, by the id in the hash
	ScryptN, ScryptR int
}

// raise raises the costs to those of a hash of the parameters, such as
// "pbkdf2-sha256$i=27500,l=64". Unknown ones are ignored: nobody can sign in with them.
func (c *Costs) raise(parameters string) {
	id, text, _ := strings.Cut(parameters, "$")
	number := func(name string) int {
		for param := range strings.SplitSeq(text, ",") {
			if value, ok := strings.CutPrefix(param, name+"="); ok {
				n, _ := decimal(value, 31)
				return int(n) //nolint:gosec // It has 31 bits.
			}
		}
		return 0
	}
	if d, ok := digests[id]; ok {
		c.Iterations[id] = max(c.Iterations[id], min(number("i"), d.maxIterations))
		return
	}
	n, r := number("n"), number("r")
	if id == firebaseID && n > 0 && r > 0 && n < 20 && r<<n <= maxScryptWork && r<<n > c.ScryptR<<c.ScryptN {
		c.ScryptN, c.ScryptR = n, r
	}
}

// spendForeign takes the time of the costs minus what was spent.
func (e localEngine) spendForeign(costs, spent Costs) {
	salt := make([]byte, saltBytes)
	takeScrypt := func(n int) {
		e.cfg.spend(firebaseID, costs.ScryptR<<n)
		_, _ = scrypt.Key(nil, salt, 1<<n, costs.ScryptR, 1, 32)
	}
	for id, iterations := range costs.Iterations {
		if left := iterations - spent.Iterations[id]; left > 0 {
			e.cfg.spend(id, left)
			_, _ = pbkdf2.Key(digests[id].new, "", salt, left, digests[id].size)
		}
	}
	switch {
	case spent.ScryptN >= costs.ScryptN:
	case spent.ScryptN == 0:
		takeScrypt(costs.ScryptN)
	default: // As with bcrypt, each step doubles the time.
		for n := spent.ScryptN; n < costs.ScryptN; n++ {
			takeScrypt(n)
		}
	}
}

// SignerKey returns why a secret cannot be a signer key of Firebase, or nil.
func SignerKey(secret string) error {
	if key, err := base64.StdEncoding.DecodeString(secret); err != nil || len(key) != 64 {
		return errors.New("a signer key is 64 bytes in base64, as Firebase shows it (base64_signer_key)")
	}
	return nil
}
