package dump_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/services/auth-service/internal/dump"
)

// into returns what takes users, and counts them.
func into(users *int) dump.Out {
	return dump.Out{
		User:    func(dump.User) error { *users++; return nil },
		LeftOut: func(string, string, string) {},
		Lost:    func(dump.Loss) {},
	}
}

// A large export is read user by user.
func TestExportsAreReadUserByUser(t *testing.T) {
	t.Parallel()
	const n = 50_000
	in, w := io.Pipe()
	go func() {
		fmt.Fprint(w, `{"realm":"demo","users":[`)
		for i := range n {
			if i > 0 {
				fmt.Fprint(w, ",")
			}
			fmt.Fprintf(w, `{"id":"01926f39-0000-4000-8000-%012d","username":"u","email":"user%d@example.org","attributes":{"a":["%0500d"]}}`, i, i, i)
		}
		fmt.Fprint(w, `],"more":true}`)
		w.Close()
	}()
	users, highest := 0, uint64(0)
	out := into(&users)
	out.User = func(dump.User) error {
		if users++; users%5_000 == 0 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			highest = max(highest, m.HeapAlloc)
		}
		return nil
	}
	if err := dump.Keycloak(in, out); err != nil || users != n {
		t.Fatalf("%d users, %v", users, err)
	}
	if highest > 12<<20 { // The file has 30 MB.
		t.Errorf("%d bytes on the heap", highest)
	}
}

// Faults name the place and the user, and leave out that user only.
func TestFaultyUsersAreLeftOut(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		read func(io.Reader, dump.Out) error
		in   string
		want string
	}{
		"keycloak": {dump.Keycloak, `{"users":[{"email":"a@example.org","enabled":"yes"},{"username":"b","email":"b@example.org"}]}`, `byte 10 a@example.org json:`},
		"firebase": {
			func(in io.Reader, out dump.Out) error { return dump.Firebase(in, dump.FirebaseHashes{}, out) },
			`{"users":[{"localId":"a","email":"a@example.org","passwordHash":"!"},{"localId":"b","email":"b@example.org"}]}`, `byte 10 a@example.org passwordHash: invalid base64`,
		},
		"auth0": {
			func(in io.Reader, out dump.Out) error { return dump.Auth0(in, dump.Auth0Hashes{}, out) },
			"{\"user_id\":\"auth0|a\",\"email\":\"a@example.org\",\"created_at\":\"then\"}\n\n{\"email\":\"b@example.org\"}\n", `line 1 a@example.org created_at: invalid timestamp`,
		},
		"supabase": {
			func(in io.Reader, out dump.Out) error { return dump.Supabase(in, "", time.Now(), out) },
			"COPY auth.users (id, encrypted_password, email, created_at) FROM stdin;\n\t\ta@example.org\tthen\n\t\tb@example.org\t\\N\n\\.\n", `line 2 a@example.org invalid timestamp "then"`,
		},
	} {
		users, left := 0, ""
		out := into(&users)
		out.LeftOut = func(at, user, reason string) { left += at + " " + user + " " + reason }
		if err := tc.read(strings.NewReader(tc.in), out); err != nil || users != 1 || !strings.HasPrefix(left, tc.want) {
			t.Errorf("%s: %d users, left out %q, %v; want %q", name, users, left, err, tc.want)
		}
	}
}

// A dump that was cut at the end of a line lacks users. That is an error.
func TestTruncatedDump(t *testing.T) {
	t.Parallel()
	const (
		copied  = "COPY auth.users (id, encrypted_password, email) FROM stdin;\n1\t\ta@example.org\n2\t\tb@example.org\n"
		factors = copied + "\\.\nCOPY auth.mfa_factors (id) FROM stdin;\n1\n"
		whole   = factors + "\\.\n"
	)
	for _, in := range []string{copied, factors} {
		users := 0
		if err := dump.Supabase(strings.NewReader(in), "", time.Now(), into(&users)); err == nil || !strings.Contains(err.Error(), "has no end") {
			t.Errorf("%q: %v", in, err)
		}
	}
	users := 0
	if err := dump.Supabase(strings.NewReader(whole), "", time.Now(), into(&users)); err != nil || users != 2 {
		t.Errorf("the whole dump: %d users, %v", users, err)
	}
}

// readers read the files of each source.
var readers = map[string]func(data []byte, out dump.Out) error{
	"keycloak": func(data []byte, out dump.Out) error { return dump.Keycloak(bytes.NewReader(data), out) },
	"firebase": func(data []byte, out dump.Out) error {
		return dump.Firebase(bytes.NewReader(data), dump.FirebaseHashes{}, out)
	},
	"auth0": func(data []byte, out dump.Out) error {
		return dump.Auth0(bytes.NewReader(data), dump.Auth0Hashes{}, out)
	},
	"supabase": func(data []byte, out dump.Out) error {
		return dump.Supabase(bytes.NewReader(data), "", time.Now(), out)
	},
}

// An export of one source is an error for each other source. A byte order mark changes nothing.
func TestExportsOfOtherSources(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"keycloak-realm.json": "keycloak", "firebase-users.json": "firebase", "auth0-users.ndjson": "auth0", "supabase.sql": "supabase",
		"supabase.csv": "supabase", "auth0-hashes.ndjson": "", "import.ndjson": "",
	}
	texts := map[string]string{`{"users":[]}`: "", `{"id":"demo","users":[{"id":"1","email":"a@example.org"}]}`: "", "": "", "[]": "", "a,b\n1,2\n": ""}
	for file, source := range files {
		data, err := os.ReadFile(filepath.Join("../../testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		texts[string(data)] = source
	}
	for text, source := range texts {
		for from, read := range readers {
			users := 0
			err := read([]byte(text), into(&users))
			if (err == nil) != (from == source) || from != source && users > 0 {
				t.Errorf("%s reads %d users of %.40q: %v", from, users, text, err)
			}
			marked := 0
			if err := read([]byte(dump.BOM+strings.TrimPrefix(text, dump.BOM)), into(&marked)); from == source && (err != nil || marked != users) {
				t.Errorf("%s with a byte order mark: %d users of %d, %v", from, marked, users, err)
			}
		}
	}
}

// The password hashes of Auth0 are found behind a byte order mark.
func TestAuth0HashesWithBOM(t *testing.T) {
	t.Parallel()
	hashes, err := dump.IndexAuth0Hashes(strings.NewReader(dump.BOM + "{\"_id\":{\"$oid\":\"1\"},\"passwordHash\":\"x\"}\n{\"_id\":{\"$oid\":\"2\"},\"passwordHash\":\"y\"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	got, users := "", 0
	out := into(&users)
	out.User = func(u dump.User) error { got += u.PasswordHash; return nil }
	in := "{\"user_id\":\"auth0|2\",\"email\":\"b@example.org\"}\n{\"user_id\":\"auth0|1\",\"email\":\"a@example.org\"}\n"
	if err := dump.Auth0(strings.NewReader(in), hashes, out); err != nil || got != "yx" {
		t.Errorf("hashes = %q, %v", got, err)
	}
}

// A name becomes one line, because an import refuses any other.
func TestNamesAreOneLine(t *testing.T) {
	t.Parallel()
	name, users := "", 0
	out := into(&users)
	out.User = func(u dump.User) error { name = u.Name; return nil }
	err := readers["keycloak"]([]byte(`{"users":[{"username":"a","email":"a@example.org","firstName":"Ann\r\n\tMay\u0000\u2028","lastName":"\u0085Lee\u0007 Roe"}]}`), out)
	if err != nil || name != "Ann May Lee Roe" {
		t.Errorf("name = %q, %v", name, err)
	}
}

func FuzzExports(f *testing.F) {
	files, err := filepath.Glob("../../testdata/*")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil {
			f.Add(data)
		}
	}
	f.Fuzz(func(_ *testing.T, data []byte) {
		users := 0
		out := into(&users)
		_ = dump.Keycloak(bytes.NewReader(data), out)
		_ = dump.Firebase(bytes.NewReader(data), dump.FirebaseHashes{}, out)
		_ = dump.Supabase(bytes.NewReader(data), "id", time.Now(), out)
		if hashes, err := dump.IndexAuth0Hashes(bytes.NewReader(data)); err == nil {
			_ = dump.Auth0(bytes.NewReader(data), hashes, out)
		}
		_, _ = dump.ParseFirebaseHashes(string(data), "id")
	})
}
