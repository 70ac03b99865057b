package password_test

import (
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/services/auth-service/internal/password"
)

// The hashes were computed by other programs: those of PBKDF2 by Python's hashlib, those of
// Firebase by the npm package firebase-scrypt. The first is the test vector of
// github.com/firebase/scrypt, with its signer key.
const signerKey = "jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA=="

var foreignHashes = map[string]string{
	"$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,keyid=fb$42xEC+ixf3L2lw==$lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ==": "user1password",
	"$fbscrypt$v=1,n=8,r=4,p=1,ss=Bw,keyid=fb$42xEC+ixf3L2lw$8QDZx0xma+ERkNbOsaP+r/MgIR77yVPw6sqe0gjWxRv1KcJvI/eZi0oqctjGWWKpRleLJ69vxWIBvRH21Bw7iA":        "Zebra-crossing 91",
	"$pbkdf2$i=1000,l=64$c29tZXNhbHRzb21lc2FsdA$LwaIS73MVcYqLF4UkriKuoMVAwYmk3X15ZObglqq9KOvw3rCz/nrYSmKi1pqVRM8us3wjW5DOIZCIBbK+QMFQQ":                     "Zebra-crossing 91",
	"$pbkdf2-sha256$i=1000,l=64$c29tZXNhbHRzb21lc2FsdA$muWaNzxmw8u6+c6seeselQjEcxt9hx0VJG+WUe0Qo6Fk2er436EYgDde3QnlSqLScw9LlNOFQxbev91ShvWM2w":              "Zebra-crossing 91",
	"$pbkdf2-sha256$i=1000$c29tZXNhbHRzb21lc2FsdA$muWaNzxmw8u6+c6seeselQjEcxt9hx0VJG+WUe0Qo6E":                                                              "Zebra-crossing 91",
	"$pbkdf2-sha512$l=64,i=1000$c29tZXNhbHRzb21lc2FsdA==$58VbGAK/HGAZm5v0KRtiX/kR/5pPIrmoAXEU2qq5h/MwqmHZMDTid7GuRqHei393sH4K3TR5dZpqGUNksmZYBg==":          "Zebra-crossing 91",
}

func foreignHasher(t *testing.T, params password.Params) *password.Hasher {
	t.Helper()
	signers, err := service.ParseKeys("SIGNERS", service.Secret("fb:"+signerKey))
	if err != nil {
		t.Fatal(err)
	}
	return password.NewHasher(password.Config{Params: params, Signers: signers, Concurrency: 1, Queue: 10})
}

// Passwords of Keycloak and Firebase are checked as there, and get a new hash.
func TestHashesOfKeycloakAndFirebase(t *testing.T) {
	t.Parallel()
	h := foreignHasher(t, cheap)
	for hash, right := range foreignHashes {
		if err := h.CheckHash(hash); err != nil {
			t.Errorf("CheckHash(%s) = %v", hash, err)
		}
		if ok, stale, err := h.Verify(t.Context(), hash, right); !ok || !stale || err != nil {
			t.Errorf("Verify(%s) = %t, stale %t, %v", hash, ok, stale, err)
		}
		for _, wrong := range []string{right + "x", right[1:], strings.ToUpper(right)} {
			if ok, _, err := h.Verify(t.Context(), hash, wrong); ok || err != nil {
				t.Errorf("Verify(%s) of %q = %t, %v", hash, wrong, ok, err)
			}
		}
	}
}

func TestMalformedHashesOfKeycloakAndFirebase(t *testing.T) {
	t.Parallel()
	h := foreignHasher(t, cheap)
	const salt, key, long = "c29tZXNhbHRzb21lc2FsdA", "muWaNzxmw8u6+c6seeselQjEcxt9hx0VJG+WUe0Qo6E", "lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ"
	for _, hash := range []string{
		"$pbkdf2-sha256$", "$pbkdf2-sha256$i=1000$" + salt, "$pbkdf2-sha256$i=0$" + salt + "$" + key, "$pbkdf2-sha256$i=-1$" + salt + "$" + key,
		"$pbkdf2-sha256$i=1000,l=64$" + salt + "$" + key, "$pbkdf2-sha256$i=1000,x=1$" + salt + "$" + key, "$pbkdf2-sha256$i=1000,i=1000$" + salt + "$" + key,
		"$pbkdf2-md5$i=1000$" + salt + "$" + key, "$pbkdf2-sha256$i=1000$$" + key, "$pbkdf2-sha256$i=1000$" + salt + "$c2hvcnQ", "$pbkdf2-sha256$v=1$i=1000$" + salt + "$" + key,
		"$pbkdf2-sha256$1000$" + salt + "$" + key,
		"$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,keyid=other$" + salt + "$" + long, "$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==$" + salt + "$" + long,
		"$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk=" + signerKey + "$" + salt + "$" + long, "$fbscrypt$v=2,n=14,r=8,p=1,ss=Bw==,keyid=fb$" + salt + "$" + long,
		"$fbscrypt$v=1,n=14,r=8,p=2,ss=Bw==,keyid=fb$" + salt + "$" + long, "$fbscrypt$v=1,n=0,r=8,p=1,ss=Bw==,keyid=fb$" + salt + "$" + long,
		"$fbscrypt$v=1,n=14,r=8,p=1,ss=!,keyid=fb$" + salt + "$" + long, "$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,keyid=fb$" + salt + "$" + key,
	} {
		if err := h.CheckHash(hash); err == nil {
			t.Errorf("CheckHash accepts %q", hash)
		}
		if ok, _, err := h.Verify(t.Context(), hash, "x"); ok || err == nil {
			t.Errorf("Verify(%q) = %t, %v", hash, ok, err)
		}
	}
}

// SEC-147: the costs of every kind of imported hash are bounded. Among what is allowed are the
// defaults of the sources.
func TestSEC147CostsOfForeignHashesAreBounded(t *testing.T) {
	t.Parallel()
	h := foreignHasher(t, cheap)
	const tail = "$c29tZXNhbHRzb21lc2FsdA$lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ"
	for params, affordable := range map[string]bool{
		"$pbkdf2$i=1300000":           true, // Keycloak 24
		"$pbkdf2$i=1500001":           false,
		"$pbkdf2-sha256$i=27500":      true, // Keycloak before 24
		"$pbkdf2-sha256$i=1200000":    true, // Django 6
		"$pbkdf2-sha256$i=1300001":    false,
		"$pbkdf2-sha512$i=210000":     true, // Keycloak 24
		"$pbkdf2-sha512$i=1000001":    false,
		"$pbkdf2-sha512$i=2147483647": false,
		"$fbscrypt$v=1,n=14,r=8":      true, // Firebase
		"$fbscrypt$v=1,n=16,r=8":      true,
		"$fbscrypt$v=1,n=17,r=8":      false,
		"$fbscrypt$v=1,n=200,r=200":   false,
		"$fbscrypt$v=1,n=12,r=255":    false,
	} {
		hash := params + tail
		if strings.HasPrefix(params, "$fb") {
			hash = params + ",p=1,ss=Bw==,keyid=fb" + tail
		}
		if err := h.CheckHash(hash); (err == nil) != affordable {
			t.Errorf("CheckHash(%q) = %v", hash, err)
		}
		if affordable {
			continue
		}
		if ok, _, err := h.Verify(t.Context(), hash, "x"); ok || err != nil {
			t.Errorf("Verify(%q) = %t, %v", hash, ok, err)
		}
	}
}

// SEC-147: with imported hashes of every kind, the time of a mismatch reveals neither which
// addresses have an account nor from where it was imported (SEC-26).
//
//nolint:paralleltest // Parallel tests would distort the measurement.
func TestSEC147MismatchesOfForeignHashesTakeTheSameTime(t *testing.T) {
	h := foreignHasher(t, password.Params{MemoryKiB: 1024, Passes: 2, Threads: 1})
	own, err := h.Hash(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	hashes, parameters := map[string]string{"nobody": "", "argon2id": own}, []string{"unknown$i=99999999", "pbkdf2$i=99999999999", "fbscrypt$n=99,r=99"}
	for hash := range foreignHashes {
		kind := strings.Join(strings.Split(hash, "$")[1:3], "$")
		hashes[kind], parameters = hash, append(parameters, kind)
	}
	parameters = append(parameters, "pbkdf2$i=5000")
	h.SetStored(4, parameters)
	wantEqualTimes(t, h, hashes, 10)
}
