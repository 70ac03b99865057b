package cursor_test

import (
	"encoding/base64"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/cursor"
)

const id = "01890000-0000-7000-8000-00000000abcd"

// TestMicroseconds: a cursor keeps the microseconds of the time, before 1970 too, and the id.
func TestMicroseconds(t *testing.T) {
	t.Parallel()
	for _, want := range []time.Time{
		time.Date(2026, 1, 31, 12, 0, 0, 123_456_000, time.UTC), time.Date(1969, 12, 31, 23, 59, 59, 999_999_000, time.UTC),
		time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), time.UnixMicro(0).UTC(),
	} {
		p, err := cursor.Parse(cursor.At(want, id).Encode())
		if got, gotID := p.Bound(); err != nil || !got.Equal(want) || gotID != id {
			t.Errorf("the bound after %s = %s %s, %v", want, got, gotID, err)
		}
	}
}

// TestFirstPage: every item is after the zero position.
func TestFirstPage(t *testing.T) {
	t.Parallel()
	if created, id := cursor.Position("").Bound(); created.Year() != 9999 || id != "ffffffff-ffff-ffff-ffff-ffffffffffff" {
		t.Errorf("the bound of the first page = %s %s", created, id)
	}
}

// TestInvalid: what a client made up is refused, and so is a cursor of a list in another order.
func TestInvalid(t *testing.T) {
	t.Parallel()
	encode := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	for _, text := range []string{
		"", "!", "YQ", encode(id), encode("1"), encode("." + id), encode("1." + id + " "), encode("+1." + id), encode("01." + id), encode("-0." + id),
		encode("1.{" + id + "}"), encode("9223372036854775807." + id), encode("-9223372036854775808." + id), encode("1.x"), encode("1."+id) + "=",
	} {
		if p, err := cursor.Parse(text); err == nil {
			t.Errorf("Parse(%q) = %q", text, p)
		}
	}
	if p, err := cursor.ParseID(cursor.At(time.Now(), id).Encode()); err == nil {
		t.Errorf("ParseID of a position in time = %q", p)
	}
	if p, err := cursor.ParseID(cursor.ByID(id).Encode()); err != nil || string(p) != id {
		t.Errorf("ParseID = %q, %v", p, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(cursor.At(time.Now(), id).Encode())
	f.Add(cursor.ByID(id).Encode())
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := cursor.Parse(text); err == nil && (cursor.At(p.Bound()) != p || p.Encode() != text) {
			t.Errorf("Parse(%q) = %q, which is another position", text, p)
		}
		if p, err := cursor.ParseID(text); err == nil && p.Encode() != text {
			t.Errorf("ParseID(%q) = %q", text, p)
		}
	})
}
