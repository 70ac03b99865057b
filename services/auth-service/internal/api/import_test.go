package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// An import refuses hashes that cannot be checked, and addresses that are taken.
func TestImportRefusesUnusableAccounts(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for _, hash := range []string{
		"$argon2id$v=19$m=64,t=1,p=1,keyid=gone$c2FsdHNhbHQ$a2V5a2V5a2V5a2V5a2V5a2V5a2V5", "$2b$10$" + strings.Repeat("!", 53),
	} {
		if err := s.accounts.CheckImport(account.Imported{Email: "ann@example.com", Name: "Ann", PasswordHash: hash}); err == nil {
			t.Errorf("CheckImport accepts the hash %s", hash)
		}
	}
	s.signup("ann@example.com") // somebody else's account
	got, err := s.accounts.Import(t.Context(), []account.Imported{{Email: "ann@example.com", Name: "Ann"}})
	if err != nil || got[0] != account.ImportConflict {
		t.Errorf("Import = %v, %v, want a conflict", got, err)
	}
}

// Imported users sign in with their old passwords, which then get a new hash.
func TestImport(t *testing.T) {
	t.Parallel()
	s := newService(t)
	weak, err := bcrypt.GenerateFromPassword([]byte(goodPassword), 6)
	if err != nil {
		t.Fatal(err)
	}
	joined := time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC)
	in := []account.Imported{
		{Email: "ann@example.com", Name: "Ann", EmailVerified: true, PasswordHash: string(weak), CreatedAt: joined},
		{Email: "bob@example.com", Name: "Bob"},
		{Email: "ANN@example.com", Name: "Ann again"},
		{ID: "01926f39-0000-7000-8000-000000000001", Email: "cy@example.com", Name: "Cy", Role: "auditor", Status: "disabled"},
	}
	got, err := s.accounts.Import(t.Context(), in)
	if want := []account.ImportOutcome{account.ImportCreated, account.ImportCreated, account.ImportConflict, account.ImportCreated}; err != nil || !slices.Equal(got, want) {
		t.Fatalf("Import = %v, %v, want %v", got, err, want)
	}
	in = append(in, account.Imported{ID: "01926f39-0000-7000-8000-000000000002", Email: "ann@example.com", Name: "Eve"})
	got, err = s.accounts.Import(t.Context(), in)
	if want := []account.ImportOutcome{account.ImportExists, account.ImportExists, account.ImportConflict, account.ImportExists, account.ImportConflict}; err != nil || !slices.Equal(got, want) {
		t.Fatalf("Import again = %v, %v, want %v", got, err, want)
	}
	if n := s.count(event.User, event.UserSignedUp{}); n != 3 {
		t.Errorf("%d sign-ups, want 3", n)
	}
	if n := len(s.events(event.Email)); n != 0 {
		t.Errorf("%d mails to imported users, want none", n)
	}
	ann := s.login("ann@example.com").Data.User
	if !ann.CreatedAt.Equal(joined) || !ann.EmailVerified {
		t.Errorf("user = %+v", ann)
	}
	s.login("ann@example.com")
	s.want(s.call("POST", "/login", "", fields{"email": "bob@example.com", "password": goodPassword}), 401, "invalid_credentials")
	exported := map[string]string{}
	err = s.accounts.Export(t.Context(), func(a account.Account) error {
		exported[a.Email.Address] = fmt.Sprintf("%s %s %.9s", a.Role, a.Status, a.PasswordHash)
		return nil
	})
	if err != nil || len(exported) != 3 || exported["ann@example.com"] != "user active $argon2id" || exported["cy@example.com"] != "auditor disabled " {
		t.Errorf("Export = %v, %v", exported, err)
	}
}

func TestImportRefusesInvalidFields(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for reason, in := range map[string]account.Imported{
		"email":        {Email: "nonsense", Name: "A"},
		"name":         {Email: "a@example.com"},
		"id":           {Email: "a@example.com", Name: "A", ID: "7"},
		"role":         {Email: "a@example.com", Name: "A", Role: "god"},
		"status":       {Email: "a@example.com", Name: "A", Status: "asleep"},
		"passwordHash": {Email: "a@example.com", Name: "A", PasswordHash: "5f4dcc3b5aa765d61d8327deb882cf99"},
	} {
		if err := s.accounts.CheckImport(in); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("CheckImport(%+v) = %v, want an error about %s", in, err, reason)
		}
	}
}

// The id of an imported account is of the time that is stored, so that lists by id are lists
// by time. A repetition finds the accounts again, although its own time is later.
func TestImportMakesIDsOfTheStoredTime(t *testing.T) {
	t.Parallel()
	s := newService(t)
	in := []account.Imported{
		{Email: "ann@example.com", Name: "Ann"},
		{Email: "bob@example.com", Name: "Bob", CreatedAt: s.time().AddDate(73, 0, 0)},
		{Email: "cy@example.com", Name: "Cy", CreatedAt: time.Date(2020, 2, 3, 4, 5, 6, 7_891_000, time.UTC)},
	}
	for want := account.ImportCreated; want <= account.ImportExists; want++ {
		got, err := s.accounts.Import(t.Context(), in)
		if err != nil || !slices.Equal(got, []account.ImportOutcome{want, want, want}) {
			t.Fatalf("Import = %v, %v, want %v", got, err, want)
		}
		s.advance(time.Hour)
	}
	err := s.accounts.Export(t.Context(), func(a account.Account) error {
		if want := fmt.Sprintf("%012x", a.CreatedAt.UnixMilli()); strings.ReplaceAll(a.ID, "-", "")[:12] != want {
			t.Errorf("%s was created at %s with the id %s, want %s…", a.Email.Address, a.CreatedAt, a.ID, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	in[2].CreatedAt = in[2].CreatedAt.Add(time.Hour)
	if got, err := s.accounts.Import(t.Context(), in[2:]); err != nil || got[0] != account.ImportConflict {
		t.Errorf("Import of another time = %v, %v, want a conflict", got, err)
	}
}
