package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/testkit"
)

// TestConvert converts exports of other systems in their documented shapes, imports them, and
// signs in with the passwords that were hashed there.
func TestConvert(t *testing.T) {
	t.Parallel()
	const signerKey = "jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA=="
	s := startImporting(t, "FIREBASE_SIGNER_KEYS", "firebase:"+signerKey)
	for name, tc := range map[string]struct {
		args    []string
		stderr  []string // in its summary
		stdout  []string // in its lines
		signIns []string
		created string
	}{
		"keycloak": {
			args: []string{"-from", "keycloak", "testdata/keycloak-realm.json"},
			stderr: []string{
				"users converted: 6, left out: 2", `"service-account-app": the user is a service account`, "no email address",
				"users with a second factor, who must set it up again: 1", "users who also sign in with another provider, which they cannot any more: 1", "users whose roles or groups are replaced by the role user: 1", "users with metadata or attributes: 1", "users with a password hash of an unsupported kind, who must reset their password: 1", "users without a password, who must reset it: 2",
			},
			stdout: []string{
				`{"id":"01926f39-0000-4000-8000-000000000001","email":"sha1@example.org","emailVerified":true,"name":"Sha One","passwordHash":"$pbkdf2$i=20000$`,
				`"email":"off@example.org","name":"Off","status":"disabled","createdAt":"2020-02-03T04:05:06.005Z"}`,
				`"email":"argon@example.org","emailVerified":true,"name":"argon","passwordHash":"$argon2id$v=19$m=4096,t=2,p=1$`,
			},
			signIns: []string{"sha1@example.org", "sha256@example.org", "sha512@example.org", "argon@example.org"},
			created: "6 created, 0 existing, 0 refused",
		},
		"firebase": {
			args:   []string{"-from", "firebase", "-hash-config", "testdata/firebase-hash-config.txt", "testdata/firebase-users.json"},
			stderr: []string{"users converted: 3, left out: 1", `"phone000000000000000000000c1": the user has no email address`, "set FIREBASE_SIGNER_KEYS to firebase:KEY", "users with a second factor, who must set it up again: 1", "users who also sign in with another provider, which they cannot any more: 1", "users with metadata or attributes: 1", "users without a password, who must reset it: 1"},
			stdout: []string{
				`{"sourceId":"Qh2tXk1bZcN6cJkWcQ9h0m2y3aB1","email":"fire@example.org","emailVerified":true,"name":"Fire Base","passwordHash":"$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw,keyid=firebase$42xEC+ixf3L2lw$`,
				`"email":"stopped@example.org","emailVerified":true,"name":"Stopped","status":"disabled"`,
			},
			signIns: []string{"fire@example.org", "url@example.org"},
			created: "3 created, 0 existing, 0 refused",
		},
		"auth0": {
			args:   []string{"-from", "auth0", "-hashes", "testdata/auth0-hashes.ndjson", "testdata/auth0-users.ndjson"},
			stderr: []string{"users converted: 3, left out: 1", `"sms|5f": the user has no email address`, "users who also sign in with another provider, which they cannot any more: 1", "users with a second factor, who must set it up again: 1", "users with metadata or attributes: 1", "password hashes of no user in the export: 1", "users without a password, who must reset it: 1"},
			stdout: []string{
				`{"sourceId":"auth0|60425dc43519d90068f82973","email":"zero@example.org","emailVerified":true,"name":"Zero Auth","passwordHash":"$2b$06$`,
				`"email":"capital@example.org","name":"Cap","status":"disabled","passwordHash":"$2b$06$`,
				`{"sourceId":"google-oauth2|1134","email":"social@example.org","emailVerified":true,"name":"So Cial","createdAt":"2020-02-03T04:05:08Z"}`,
			},
			signIns: []string{"zero@example.org"},
			created: "3 created, 0 existing, 0 refused",
		},
		"supabase": {
			args:   []string{"-from", "supabase", "-key-id", "firebase", "testdata/supabase.sql"},
			stderr: []string{"users converted: 4, left out: 2", `line 19: "deleted@example.org": the user is deleted`, "no email address", "users with a second factor, who must set it up again: 1", "users who also sign in with another provider, which they cannot any more: 1", "users with metadata or attributes: 1"},
			stdout: []string{
				`{"id":"01926f39-0000-4000-9000-000000000001","email":"supa@example.org","emailVerified":true,"name":"Supa \"Base\"","passwordHash":"$2b$06$`,
				`"createdAt":"2020-02-03T04:05:06.789012Z"}`, `"email":"banned@example.org","name":"banned","status":"disabled"`, `,p=1,ss=Bw==,keyid=firebase$42xEC`,
			},
			signIns: []string{"supa@example.org", "moved@example.org", "back@example.org"},
			created: "4 created, 0 existing, 0 refused",
		},
	} {
		stdout, stderr := s.users(0, append([]string{"convert"}, tc.args...)...)
		for _, want := range tc.stderr {
			if !strings.Contains(stderr, want) {
				t.Errorf("%s: want %q in\n%s", name, want, stderr)
			}
		}
		for _, want := range tc.stdout {
			if !strings.Contains(stdout, want) {
				t.Errorf("%s: want %q in\n%s", name, want, stdout)
			}
		}
		if strings.Contains(stdout+stderr, signerKey) {
			t.Errorf("%s: the signer key is printed", name)
		}
		file := filepath.Join(t.TempDir(), "users.ndjson")
		if err := os.WriteFile(file, []byte(stdout), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, stderr := s.users(0, "import", file); !strings.Contains(stderr, tc.created) {
			t.Errorf("%s: want %q in\n%s", name, tc.created, stderr)
		}
		for _, email := range tc.signIns {
			s.wantLogin(email, importedPassword)
		}
		if ids, err := os.ReadFile(file + ".ids"); err != nil || strings.Contains(stdout, "sourceId") && strings.Count(string(ids), "\n") != 3 {
			t.Errorf("%s: ids = %s, %v", name, ids, err)
		}
	}
	csv, _ := s.users(0, "convert", "-from", "supabase", "-key-id", "firebase", "testdata/supabase.csv")
	if sql, _ := s.users(0, "convert", "-from", "supabase", "-key-id", "firebase", "testdata/supabase.sql"); csv != sql {
		t.Errorf("the CSV file gives\n%s\nthe dump\n%s", csv, sql)
	}
	if stdout, stderr := s.users(0, "convert", "-from", "supabase", "testdata/supabase.sql"); strings.Contains(stdout, "fbscrypt") || !strings.Contains(stderr, "users with a password hash of an unsupported kind, who must reset their password: 1") {
		t.Errorf("without -key-id:\n%s%s", stdout, stderr)
	}
}

// A truncated dump ends with an error, and without a summary that looks like success.
func TestConvertOfATruncatedDump(t *testing.T) {
	t.Parallel()
	whole, err := os.ReadFile("testdata/supabase.sql")
	if err != nil {
		t.Fatal(err)
	}
	cut, _, _ := strings.Cut(string(whole), "\n00000000-0000-0000-0000-000000000000\t01926f39-0000-4000-9000-000000000003")
	file := filepath.Join(t.TempDir(), "cut.sql")
	if err := os.WriteFile(file, []byte(cut+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, stderr, code := testkit.RunProgram(t, nil, "users", "convert", "-from", "supabase", file)
	if code != 1 || !strings.Contains(stderr, "the COPY of auth.users has no end; the output is incomplete: do not import it") || strings.Contains(stderr, "users converted") {
		t.Errorf("code %d\n%s", code, stderr)
	}
}

// What is not an export of the kind is an error that says so, not an empty file.
func TestConvertRefusesOtherFiles(t *testing.T) {
	t.Parallel()
	for _, args := range []string{
		"keycloak testdata/import.ndjson", "keycloak testdata/supabase.sql", "firebase testdata/firebase-users.json", "supabase testdata/keycloak-realm.json",
		"nonsense testdata/import.ndjson", "auth0 testdata/nowhere", "auth0 -hashes testdata/supabase.sql testdata/auth0-users.ndjson",
		"supabase -key-id a:b testdata/supabase.sql",
	} {
		if err := convertUsers(t.Context(), append([]string{"-from"}, strings.Fields(args)...)); err == nil {
			t.Errorf("convert -from %s succeeds", args)
		}
	}
}

// The first fault of a command line is named: the source, then what the source requires.
func TestConvertSaysWhatIsRequired(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-from nope testdata/nowhere":                 `-from: unknown source "nope"`,
		"testdata/nowhere":                            `-from: unknown source ""`,
		"-from firebase testdata/nowhere":             "-hash-config is required",
		"-from firebase testdata/firebase-users.json": "-hash-config is required",
	} {
		if err := convertUsers(t.Context(), strings.Fields(args)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("convert %s: %v, want %q", args, err, want)
		}
	}
}
