package api_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/bcrypt"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/store"
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
	if err != nil || got[0].Outcome != account.ImportEmailTaken {
		t.Errorf("Import = %v, %v, want a conflict", got, err)
	}
}

// wantImported imports lines and returns the ids of their accounts.
func (s *service) wantImported(in []account.Imported, want ...account.ImportOutcome) []string {
	s.t.Helper()
	results, err := s.accounts.Import(s.t.Context(), in)
	if err != nil {
		s.t.Fatal(err)
	}
	outcomes, ids := []account.ImportOutcome{}, []string{}
	for _, r := range results {
		outcomes, ids = append(outcomes, r.Outcome), append(ids, r.ID)
	}
	if !slices.Equal(outcomes, want) {
		s.t.Fatalf("Import = %v, want %v", outcomes, want)
	}
	return ids
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
	s.wantImported(in, account.ImportCreated, account.ImportCreated, account.ImportEmailTaken, account.ImportCreated)
	in = append(in, account.Imported{ID: "01926f39-0000-7000-8000-000000000002", Email: "ann@example.com", Name: "Eve"})
	s.wantImported(in, account.ImportExists, account.ImportExists, account.ImportEmailTaken, account.ImportExists, account.ImportEmailTaken)
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
		s.wantImported(in, want, want, want)
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
	s.wantImported(in[2:], account.ImportEmailTaken) // another line, for all that is known
}

// SEC-146: an account that is imported again after its deletion gets an id that no account
// had before, because other services have erased the former one for ever. It is found again
// by its line.
func TestSEC146IDsOfDeletedAccountsAreNotUsedAgain(t *testing.T) {
	t.Parallel()
	s := newService(t)
	in := []account.Imported{
		{ID: "01926f39-0000-7000-8000-000000000001", Email: "ann@example.com", Name: "Ann"},
		{Email: "bob@example.com", Name: "Bob"},
		{Email: "cy@example.com", Name: "Cy", CreatedAt: time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC)},
		{ID: "01926f39-0000-7000-8000-000000000004", Email: "di@example.com", Name: "Di"}, // stays
	}
	created := []account.ImportOutcome{account.ImportCreated, account.ImportCreated, account.ImportCreated}
	exists := []account.ImportOutcome{account.ImportExists, account.ImportExists, account.ImportExists, account.ImportExists}
	stays := s.wantImported(in[3:], created[:1]...)[0]
	former := map[string]bool{}
	for range 3 {
		ids := s.wantImported(in[:3], created...)
		for _, id := range ids {
			if former[id] {
				t.Errorf("the id %s is used again", id)
			}
			former[id] = true
			if n := s.countOf(id); n != 1 {
				t.Errorf("%d sign-ups with the id %s, want 1", n, id)
			}
		}
		if again := s.wantImported(in, exists...); !slices.Equal(again, append(ids, stays)) {
			t.Errorf("ids %v, then %v", ids, again)
		}
		for _, id := range ids {
			if err := s.accounts.DeleteUser(t.Context(), token.Identity{}, id); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// SEC-146: an import waits for a deletion of the account that a line with an id names, so it
// neither reports the account as existing nor uses its id again.
func TestSEC146ImportDuringADeletion(t *testing.T) {
	t.Parallel()
	s := newService(t)
	in := []account.Imported{{ID: "01926f39-0000-7000-8000-000000000001", Email: "ann@example.com", Name: "Ann"}}
	s.wantImported(in, account.ImportCreated)
	deletion, err := s.db.BeginTx(t.Context(), pgx.TxOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = deletion.Rollback(context.Background()) }()
	if _, err := deletion.Exec(t.Context(), `DELETE FROM accounts WHERE id = $1`, in[0].ID); err != nil {
		t.Fatal(err)
	}
	type imported struct {
		results []account.ImportResult
		err     error
	}
	done := make(chan imported, 1)
	go func() {
		results, err := s.accounts.Import(t.Context(), in)
		done <- imported{results, err}
	}()
	testkit.AwaitLockWait(t, s.db)
	if err := deletion.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := <-done
	if got.err != nil || len(got.results) != 1 || got.results[0].Outcome != account.ImportCreated || got.results[0].ID == in[0].ID {
		t.Errorf("Import = %+v, %v, want an account with another id", got.results, got.err)
	}
}

// SEC-146: a deletion that the database has lost in a restore can be repeated, and so can
// one that it never knew of. Its id is not used again.
func TestSEC146LostDeletionsCanBeRepeated(t *testing.T) {
	t.Parallel()
	s := newService(t)
	in := []account.Imported{
		{ID: "01926f39-0000-7000-8000-000000000001", Email: "ann@example.com", Name: "Ann"},
		{ID: "01926f39-0000-7000-8000-000000000002", Email: "bob@example.com", Name: "Bob"},
	}
	s.wantImported(in[:1], account.ImportCreated)
	for i, want := range []bool{true, false} {
		for range 2 {
			if deleted, err := s.accounts.Erase(t.Context(), in[i].ID); deleted != want || err != nil {
				t.Errorf("Erase(%s) = %t, %v, want %t", in[i].Email, deleted, err, want)
			}
			want = false
		}
	}
	for i, id := range s.wantImported(in, account.ImportCreated, account.ImportCreated) {
		if id == in[i].ID {
			t.Errorf("the id %s is used again", id)
		}
	}
}

// The account of a line stays its account when its owner changes the address.
func TestImportFindsAccountsWithAnotherAddress(t *testing.T) {
	t.Parallel()
	s := newService(t)
	in := []account.Imported{{Email: "ann@example.com", Name: "Ann"}, {ID: "01926f39-0000-7000-8000-000000000001", Email: "bob@example.com", Name: "Bob"}}
	s.wantImported(in, account.ImportCreated, account.ImportCreated)
	if _, err := s.db.Exec(t.Context(), `UPDATE accounts SET email = 'new-' || email, email_key = 'new-' || email_key`); err != nil {
		t.Fatal(err)
	}
	s.wantImported(in, account.ImportExists, account.ImportExists)
}

// countOf returns the number of sign-ups of a subject.
func (s *service) countOf(subject string) (n int) {
	s.t.Helper()
	const query = `SELECT count(*) FROM outbox WHERE topic = 'user-events' AND name = 'user.signed_up.v1' AND subject = $1`
	if err := s.db.QueryRow(s.t.Context(), query, subject).Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// Lines that a release without import keys has imported are found again by the ids that it
// made of them, unless the address of the account has changed and the line has no time.
func TestImportFindsAccountsOfEarlierReleases(t *testing.T) {
	t.Parallel()
	s := newService(t)
	in := []account.Imported{
		{Email: "ann@example.com", Name: "Ann"},
		{Email: "bob@example.com", Name: "Bob", CreatedAt: time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC)},
		{ID: "01926f39-0000-7000-8000-000000000001", Email: "cy@example.com", Name: "Cy"},
	}
	ids := s.wantImported(in, account.ImportCreated, account.ImportCreated, account.ImportCreated)
	for i, line := range in[:2] {
		var created time.Time
		if err := s.db.QueryRow(t.Context(), `SELECT created_at FROM accounts WHERE id = $1`, ids[i]).Scan(&created); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(fmt.Appendf(nil, "headgate import\x00%s\x00%d", line.Email, line.CreatedAt.UnixMicro()))
		id, err := uuid.Parse(fmt.Sprintf("%012x%x", created.UnixMilli(), sum[6:16]))
		if err != nil {
			t.Fatal(err)
		}
		id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
		if _, err := s.db.Exec(t.Context(), `UPDATE accounts SET id = $2 WHERE id = $1`, ids[i], id); err != nil {
			t.Fatal(err)
		}
		ids[i] = id.String()
	}
	if _, err := s.db.Exec(t.Context(), `UPDATE accounts SET import_key = NULL`); err != nil {
		t.Fatal(err)
	}
	s.advance(time.Hour)
	if again := s.wantImported(in, account.ImportExists, account.ImportExists, account.ImportExists); !slices.Equal(again, ids) {
		t.Errorf("ids %v, then %v", ids, again)
	}
	if _, err := s.db.Exec(t.Context(), `UPDATE accounts SET email = 'new-' || email, email_key = 'new-' || email_key`); err != nil {
		t.Fatal(err)
	}
	if again := s.wantImported(in[1:2], account.ImportExists); again[0] != ids[1] {
		t.Errorf("id %s, then %s", ids[1], again)
	}
	s.wantImported(in[2:], account.ImportIDTaken)
}

// Hashes of other systems are replaced at the first login. Until then the service knows their
// costs, so that every wrong password takes as long.
func TestImportOfForeignHashes(t *testing.T) {
	t.Parallel()
	const tail = "$c29tZXNhbHRzb21lc2FsdA$muWaNzxmw8u6+c6seeselQjEcxt9hx0VJG+WUe0Qo6E"
	s := newService(t)
	rows := store.New(s.db, outbox.New("auth-service"), s.time)
	wantParameters := func(want ...string) {
		t.Helper()
		if got, err := rows.HashParameters(t.Context()); err != nil || !slices.Equal(got, want) {
			t.Errorf("HashParameters = %v, %v, want %v", got, err, want)
		}
	}
	wantParameters()
	s.wantImported([]account.Imported{
		{Email: "ann@example.com", Name: "Ann", PasswordHash: "$pbkdf2-sha256$i=1000,l=32" + tail},
		{Email: "bob@example.com", Name: "Bob", PasswordHash: "$pbkdf2-sha256$i=1000,l=32" + tail},
		{Email: "cy@example.com", Name: "Cy", PasswordHash: "$pbkdf2-sha512$i=2000" + tail},
	}, account.ImportCreated, account.ImportCreated, account.ImportCreated)
	wantParameters("pbkdf2-sha256$i=1000,l=32", "pbkdf2-sha512$i=2000")
	for _, email := range []string{"ann@example.com", "bob@example.com"} {
		for range 2 {
			s.want(s.call("POST", "/login", "", fields{"email": email, "password": "Zebra-crossing 91"}), 200, "")
		}
	}
	wantParameters("pbkdf2-sha512$i=2000")
}
