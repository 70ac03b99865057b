package dump

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Supabase reads the users of Supabase Auth: the sections COPY auth.users and COPY
// auth.mfa_factors of a plain pg_dump, or a CSV file of the table with its header. Hashes
// that came from Firebase contain a signer key; they get keyID in its place, or are lost if
// keyID is empty. now decides whether a ban is over.
func Supabase(in io.Reader, keyID string, now time.Time, out Out) error {
	r := supabase{keyID: keyID, now: now, out: out}
	buffered, _ := withoutBOM(in)
	first, err := buffered.Peek(4096)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	header, _, _ := strings.Cut(string(first), "\n")
	if strings.Contains(header, "encrypted_password") && !strings.Contains(header, "COPY ") {
		return r.readCSV(buffered)
	}
	return r.readCopy(buffered)
}

type supabase struct {
	keyID, signerKey string
	now              time.Time
	out              Out
}

var copyStatement = regexp.MustCompile(`^COPY "?auth"?\."?(users|mfa_factors)"? \((.*)\) FROM stdin;\s*$`)

func (r *supabase) readCopy(in io.Reader) error {
	var table string
	var columns []string
	found := false
	err := eachLine(in, func(n int, _ int64, line []byte) error {
		text := strings.TrimRight(string(line), "\r\n")
		switch {
		case table == "":
			if m := copyStatement.FindStringSubmatch(text); m != nil {
				table, columns = m[1], strings.Split(strings.ReplaceAll(m[2], `"`, ""), ", ")
				if table == "users" {
					found = true
					return wantColumns(columns)
				}
			}
			return nil
		case text == `\.`:
			table = ""
			return nil
		case table == "mfa_factors":
			r.out.Lost(LostFactors)
			return nil
		}
		values := strings.Split(text, "\t")
		if len(values) != len(columns) {
			return fmt.Errorf("line %d: want %d columns, found %d", n, len(columns), len(values))
		}
		row := map[string]string{}
		for i, value := range values {
			if value != `\N` {
				row[columns[i]] = unescapeCopy(value)
			}
		}
		return r.user(fmt.Sprintf("line %d", n), row)
	})
	switch {
	case err != nil:
	case table != "":
		err = fmt.Errorf("the file is truncated: the COPY of auth.%s has no end", table)
	case !found:
		err = fmt.Errorf("%w: it has no COPY auth.users; dump with pg_dump --table auth.users, in plain format", errShape)
	}
	return err
}

func wantColumns(columns []string) error {
	for _, name := range []string{"id", "email", "encrypted_password"} {
		if !slices.Contains(columns, name) {
			return fmt.Errorf("%w: auth.users has no column %q", errShape, name)
		}
	}
	return nil
}

// unescapeCopy undoes the escapes of COPY that pg_dump uses.
var unescapeCopy = strings.NewReplacer(`\\`, `\`, `\t`, "\t", `\n`, "\n", `\r`, "\r", `\b`, "\b", `\f`, "\f", `\v`, "\v").Replace

func (r *supabase) readCSV(in io.Reader) error {
	rows := csv.NewReader(in)
	columns, err := rows.Read()
	if err != nil {
		return fmt.Errorf("%w: %w", errShape, err)
	}
	if err := wantColumns(columns); err != nil {
		return err
	}
	for {
		values, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errShape, err)
		}
		row := map[string]string{}
		for i, value := range values {
			if value != "null" && value != "NULL" {
				row[columns[i]] = value
			}
		}
		line, _ := rows.FieldPos(0)
		if err := r.user(fmt.Sprintf("line %d", line), row); err != nil {
			return err
		}
	}
}

// user sends the user of a row, whose columns without a value are missing.
func (r *supabase) user(at string, row map[string]string) error {
	user := cmp.Or(row["email"], row["id"])
	if row["deleted_at"] != "" {
		r.out.LeftOut(at, user, reasonDeleted)
		return nil
	}
	created, createdErr := pgTime(row["created_at"])
	banned, bannedErr := pgTime(row["banned_until"])
	if err := errors.Join(createdErr, bannedErr); err != nil {
		r.out.LeftOut(at, user, err.Error())
		return nil
	}
	var own map[string]any
	var app struct{ Providers []string }
	_ = json.Unmarshal([]byte(row["raw_user_meta_data"]), &own) // It is empty, or an object.
	_ = json.Unmarshal([]byte(row["raw_app_meta_data"]), &app)
	hash, err := r.hash(row["encrypted_password"])
	lost := losses{}
	lost[LostHash] = errors.Is(err, errNoKey)
	if err != nil && !lost[LostHash] {
		return fmt.Errorf("%s: %s: %w", at, user, err)
	}
	other := isTrue(row["is_sso_user"])
	for _, provider := range app.Providers {
		other = other || provider != "email" && provider != "phone"
	}
	lost[LostProviders] = other
	lost[LostMetadata] = len(own) > 0
	lost[LostRoles] = isTrue(row["is_super_admin"])
	name := ""
	for _, field := range []string{"display_name", "full_name", "name"} {
		if text, ok := own[field].(string); ok && text != "" {
			name = text
		}
	}
	return r.out.send(at, User{
		Email: row["email"], EmailVerified: row["email_confirmed_at"] != "", Name: name,
		Disabled: banned.After(r.now), PasswordHash: hash, CreatedAt: created,
	}, row["id"], lost)
}

var errNoKey = errors.New("a hash of Firebase needs the id of its signer key")

var signerKeyParam = regexp.MustCompile(`,sk=([^,$]*)`)

// hash returns a hash in the form that an import reads. Those of Firebase must all have one
// signer key. It fails with errNoKey without an id for that.
func (r *supabase) hash(text string) (string, error) {
	key := signerKeyParam.FindStringSubmatch(text)
	if key == nil || !strings.HasPrefix(text, "$fbscrypt$") {
		return text, nil
	}
	if r.keyID == "" {
		return "", errNoKey
	}
	if r.signerKey = cmp.Or(r.signerKey, key[1]); r.signerKey != key[1] {
		return "", errors.New("the hash has another signer key than those before; convert the users of each Firebase project by themselves")
	}
	return signerKeyParam.ReplaceAllLiteralString(text, ",keyid="+r.keyID), nil
}

func isTrue(text string) bool {
	is, _ := strconv.ParseBool(text) // Postgres writes t and f, programs true and false.
	return is
}

// forever is later than any time that is compared with it.
var forever = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// pgTime parses a timestamp of Postgres; an empty one is zero.
func pgTime(text string) (time.Time, error) {
	if text == "" || text == "-infinity" {
		return time.Time{}, nil
	}
	if text == "infinity" {
		return forever, nil
	}
	for _, layout := range []string{"2006-01-02 15:04:05.999999-07", "2006-01-02 15:04:05.999999-07:00", time.RFC3339Nano} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("invalid timestamp %q", text)
}
