package store_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/user-service/internal/profile"
	"github.com/headgate/headgate/services/user-service/internal/store"
)

// people are the names and addresses of the test, the oldest first.
var people = [][2]string{
	{"Ann Smith", "ann@example.com"},
	{"Anna-Lena O'Brien", "o'brien@example.com"},
	{"Ångström ÖZGÜR", "özgür@example.com"},
	{"ΟΔΥΣΣΕΥΣ Παπάς", "odysseus@example.com"},
	{"100% Legit_User", "legit_user+100%@example.com"},
	{`Back\slash 'Quoted' & (Or) | !Not:*`, `back\slash@example.com`},
	{"Дмитрий Иванов", "dmitri@example.com"},
	{"李 小龍", "lee@example.com"},
	{"Smith", "smithers@example.org"},
	{"", "nameless@example.com"},
	{"Unaddressed", ""},
}

func directory(t *testing.T) *store.Store {
	t.Helper()
	db := testkit.Database(t, outbox.Schema(), store.Schema())
	for i, person := range people {
		insert(t, db, person[0], person[1], day(i))
	}
	return store.New(db, outbox.New("user-service"))
}

func day(n int) time.Time { return time.Date(2026, 1, 1+n, 0, 0, 0, 0, time.UTC) }

func insert(t testing.TB, db *postgres.Pool, name, email string, created time.Time) {
	t.Helper()
	_, err := db.Exec(t.Context(), `INSERT INTO profiles (user_id, name, email, created_at, updated_at) VALUES (gen_random_uuid(), $1, $2, $3, $3)`, name, email, created)
	if err != nil {
		t.Fatal(err)
	}
}

func find(t testing.TB, rows *store.Store, search profile.Search) []string {
	t.Helper()
	found, err := rows.List(t.Context(), search, "", 100)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, p := range found {
		names = append(names, p.Name)
	}
	return names
}

// TestDirectory: a profile is found by the beginnings of its address and of the words of its name,
// in any script and case, the newest first.
func TestDirectory(t *testing.T) {
	t.Parallel()
	rows := directory(t)
	for q, want := range map[string][]string{
		"ann":              {"Anna-Lena O'Brien", "Ann Smith"},
		"ANN@":             {"Ann Smith"},
		"ann@example.com":  {"Ann Smith"},
		"smith":            {"Smith", "Ann Smith"},
		"sm an":            {"Ann Smith"},
		"  Smith   ANN@e ": {"Ann Smith"},
		"mith":             {},
		"example":          {},
		"o'b":              {"Anna-Lena O'Brien"},
		"ångs":             {"Ångström ÖZGÜR"},
		"özgür":            {"Ångström ÖZGÜR"},
		"ÖZG":              {"Ångström ÖZGÜR"},
		"οδυσσευσ":         {"ΟΔΥΣΣΕΥΣ Παπάς"},
		"Οδυσσεύς":         {},
		"οδυσσευς":         {"ΟΔΥΣΣΕΥΣ Παπάς"},
		"ΟΔΥΣ παπ":         {"ΟΔΥΣΣΕΥΣ Παπάς"},
		"дми":              {"Дмитрий Иванов"},
		"ИВАН":             {"Дмитрий Иванов"},
		"小":                {"李 小龍"},
		"nameless":         {""},
		"unad":             {"Unaddressed"},
		"nobody":           {},
	} {
		if got := find(t, rows, profile.Search{Q: q}); !slices.Equal(got, want) {
			t.Errorf("%q finds %q, want %q", q, got, want)
		}
	}
	if all := find(t, rows, profile.Search{}); len(all) != len(people) || all[0] != "Unaddressed" {
		t.Errorf("all = %q", all)
	}
	for _, tc := range []struct {
		search profile.Search
		want   []string
	}{
		{profile.Search{CreatedAfter: day(8), CreatedBefore: day(10)}, []string{"", "Smith"}},
		{profile.Search{Q: "smith", CreatedAfter: day(1)}, []string{"Smith"}},
		{profile.Search{Q: "smith", CreatedBefore: day(8)}, []string{"Ann Smith"}},
		{profile.Search{Q: "smith", CreatedAfter: day(20)}, []string{}},
	} {
		if got := find(t, rows, tc.search); !slices.Equal(got, tc.want) {
			t.Errorf("%+v finds %q, want %q", tc.search, got, tc.want)
		}
	}
}

// TestSEC152SearchIsLiteral: what is searched for is text: no character of it is a pattern or an
// operator of the database, whether the newest profiles or the index answers.
func TestSEC152SearchIsLiteral(t *testing.T) {
	t.Parallel()
	rows := directory(t)
	for q, want := range map[string][]string{
		"%": {}, "_": {}, "*": {}, "%nn": {}, "a_n": {}, "ann%": {}, `\`: {}, `ann\`: {}, "ann:*": {}, "ann:* |": {}, "|": {`Back\slash 'Quoted' & (Or) | !Not:*`}, "!not:*": {`Back\slash 'Quoted' & (Or) | !Not:*`},
		"100%": {"100% Legit_User"}, "legit_user+100%@": {"100% Legit_User"}, "legit_": {"100% Legit_User"}, "legit%": {},
		`back\`: {`Back\slash 'Quoted' & (Or) | !Not:*`}, `back\\`: {}, "'quoted'": {`Back\slash 'Quoted' & (Or) | !Not:*`}, "'": {`Back\slash 'Quoted' & (Or) | !Not:*`},
		"''": {}, "&": {`Back\slash 'Quoted' & (Or) | !Not:*`}, "(or)": {`Back\slash 'Quoted' & (Or) | !Not:*`}, "'; DROP TABLE profiles; --": {}, "$1": {}, "@q": {},
	} {
		if got := find(t, rows, profile.Search{Q: q}); !slices.Equal(got, want) {
			t.Errorf("%q finds %q, want %q", q, got, want)
		}
	}
}

// FuzzSearch: every text can be searched for, and what it finds begins with its words.
func FuzzSearch(f *testing.F) {
	db := testkit.Database(f, outbox.Schema(), store.Schema())
	for i, person := range people {
		insert(f, db, person[0], person[1], day(i))
	}
	rows := store.New(db, outbox.New("user-service"))
	for _, q := range []string{"ann", "%", `\\`, "'", "o'b", "ΟΔΥΣ", "İ", "ß", "a b", "&", ":*"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, q string) {
		if strings.ContainsRune(q, 0) || !utf8.ValidString(q) || utf8.RuneCountInString(q) > 100 {
			return // The route refuses it.
		}
		for _, name := range find(t, rows, profile.Search{Q: q}) {
			for word := range strings.FieldsSeq(q) {
				if ascii(word) && !strings.Contains(strings.ToLower(name+" "+addressOf(name)), strings.ToLower(word)) {
					t.Errorf("%q finds %q", q, name)
				}
			}
		}
	})
}

func ascii(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r > unicode.MaxASCII })
}

func addressOf(name string) string {
	for _, person := range people {
		if person[0] == name {
			return person[1]
		}
	}
	return ""
}

// TestStoreReadsIndexes: with 100,000 profiles and avatars, no method of the store reads a whole
// table, however many profiles match a search.
func TestStoreReadsIndexes(t *testing.T) {
	t.Parallel()
	db, profiles := testkit.Scans(t, "profiles", outbox.Schema(), store.Schema())
	for _, query := range []string{
		`
		INSERT INTO profiles (user_id, email, name, created_at, updated_at, avatar)
		SELECT gen_random_uuid(), 'user' || n || '@example.com', (ARRAY['Ann','Bob','Cleo','Dora'])[1 + n % 4] || ' ' || md5(n::text),
			timestamptz '2020-01-01' + n * interval '1 minute', now(), n || '.jpg'
		FROM generate_series(1, 100000) n`,
		`INSERT INTO avatars (name, user_id, unused_since) SELECT avatar, user_id, CASE WHEN random() < 0.01 THEN now() END FROM profiles`,
		`UPDATE profiles SET name = 'Zoe Rare' WHERE email IN ('user7@example.com', 'user99000@example.com')`,
		`VACUUM ANALYZE profiles`, `VACUUM ANALYZE avatars`,
	} {
		if _, err := db.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	rows, ctx := store.New(db, outbox.New("user-service")), t.Context()
	var someone profile.Profile
	if found, err := rows.List(ctx, profile.Search{Q: "user500@"}, "", 2); err != nil || len(found) != 1 {
		t.Fatalf("found %d, %v", len(found), err)
	} else {
		someone = found[0]
	}
	var avatars int
	scans := func() int {
		before := profiles()
		if err := db.QueryRow(ctx, `SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'avatars'`).Scan(&avatars); err != nil {
			t.Fatal(err)
		}
		return before + avatars
	}
	fresh := someone
	fresh.UserID, fresh.Preferences = uuid.NewString(), []byte("{}")
	for _, method := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"Get", func(ctx context.Context) error { _, err := rows.Get(ctx, someone.UserID); return err }},
		{"Seed", func(ctx context.Context) error { _, err := rows.Seed(ctx, fresh); return err }},
		{"Project", func(ctx context.Context) error { _, err := rows.Project(ctx, fresh); return err }},
		{"SetEmail", func(ctx context.Context) error { _, err := rows.SetEmail(ctx, fresh); return err }},
		{"Avatars", func(ctx context.Context) error { _, err := rows.Avatars(ctx, someone.UserID); return err }},
		{"UnusedAvatars", func(ctx context.Context) error {
			_, err := rows.UnusedAvatars(ctx, time.Now().Add(time.Hour), 100)
			return err
		}},
		{"RegisterAvatar", func(ctx context.Context) error {
			return rows.RegisterAvatar(ctx, "new.jpg", someone.UserID, time.Now())
		}},
		{"RegisteredAvatars", func(ctx context.Context) error {
			_, err := rows.RegisteredAvatars(ctx, []string{"1.jpg", "2.jpg", "x"})
			return err
		}},
		{"ReleaseAvatars", func(ctx context.Context) error { return rows.ReleaseAvatars(ctx, []string{"3.jpg", "4.jpg"}) }},
		{"Update", func(ctx context.Context) error {
			_, err := rows.Update(ctx, someone.UserID, func(p profile.Profile) (profile.Profile, []event.Event, error) {
				p.Avatar, p.Version = "", p.Version+1
				return p, []event.Event{testkit.NewEvent(ctx, p.UserID, event.UserProfileUpdated{Fields: []string{"avatarUrl"}, Version: p.Version})}, nil
			})
			return err
		}},
		{"Erase", func(ctx context.Context) error { _, err := rows.Erase(ctx, fresh.UserID, time.Now()); return err }},
	} {
		before := scans()
		if err := method.do(ctx); err != nil {
			t.Errorf("%s: %v", method.name, err)
		}
		if more := scans() - before; more > 0 {
			t.Errorf("%s read a whole table %d times", method.name, more)
		}
	}
	read := func() (n int) {
		profiles() // It waits until the numbers are known.
		if err := db.QueryRow(ctx, `SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_user_tables WHERE relname = 'profiles'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for q, want := range map[string]int{"": 50, "ann": 50, "u": 50, "ann user9": 50, "user9999": 11, "zoe": 2, "zoe rare user7@": 1, "nobody": 0, "user77777@example.com": 1} {
		// Postgres plans a statement anew until the sixth time.
		for range 8 {
			before, readBefore := scans(), read()
			found, err := rows.List(ctx, profile.Search{Q: q}, "", 50)
			if err != nil || len(found) != want {
				t.Errorf("%q: %d found, want %d, %v", q, len(found), want, err)
			}
			if more, rows := scans()-before, read()-readBefore; more > 0 || rows > 5000 {
				t.Errorf("the search for %q read a whole table %d times, and %d rows", q, more, rows)
			}
		}
	}
	seen, after := 0, cursor.Position("")
	for {
		page, err := rows.List(ctx, profile.Search{Q: "user999"}, after, 20)
		if err != nil {
			t.Fatal(err)
		}
		seen += len(page)
		if len(page) < 20 {
			break
		}
		after = cursor.At(page[19].CreatedAt, page[19].UserID)
	}
	if want := 1 + 10 + 100; seen != want {
		t.Errorf("page by page %d profiles begin with user999, want %d", seen, want)
	}
}
