package api_test

import (
	"slices"
	"testing"
	"time"

	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// TestListByCreation: accounts are listed by the time of their creation, newest first and to
// the microsecond, whatever the ids of imported accounts are, page by page.
func TestListByCreation(t *testing.T) {
	t.Parallel()
	s := newService(t)
	root := s.admin()
	joined := time.Date(2020, 2, 3, 4, 5, 6, 123_456_000, time.UTC)
	id := func(prefix string) string { return prefix + "926f39-0000-4000-8000-000000000000" }
	in := []account.Imported{
		{ID: id("ff"), Email: "oldest@example.com", Name: "Ann", CreatedAt: joined.Add(-time.Microsecond)},
		{ID: id("00"), Email: "newest@example.com", Name: "Ann", CreatedAt: joined.Add(time.Microsecond)},
		{ID: id("02"), Email: "b@example.com", Name: "Ann", CreatedAt: joined},
		{ID: id("03"), Email: "a@example.com", Name: "Ann", CreatedAt: joined},
		{ID: id("01"), Email: "c@example.com", Name: "Ann", CreatedAt: joined},
	}
	created := account.ImportCreated
	s.wantImported(in, created, created, created, created, created)
	want := []string{root.userID, id("00"), id("03"), id("02"), id("01"), id("ff")}
	for _, limit := range []string{"1", "2", "50"} {
		var got []string
		for query := "?limit=" + limit; query != ""; {
			a := s.want(s.call("GET", "/users"+query, root.AccessToken, nil), 200, "")
			for _, u := range a.Users {
				got = append(got, u.ID)
			}
			query = ""
			if a.Meta.NextCursor != "" {
				query = "?limit=" + limit + "&cursor=" + a.Meta.NextCursor
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s at a time = %v, want %v", limit, got, want)
		}
	}
	var exported []string
	err := s.accounts.Export(t.Context(), func(a account.Account) error {
		exported = append(exported, a.ID)
		return nil
	})
	if err != nil || !slices.Equal(exported, want) {
		t.Errorf("exported = %v, %v, want %v", exported, err, want)
	}
}
