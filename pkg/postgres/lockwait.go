package postgres

import (
	"fmt"
	"io"
	"io/fs"
	"iter"
	"regexp"
	"strings"
)

var (
	// withoutTransaction and up are goose's annotations of a file.
	withoutTransaction = regexp.MustCompile(`(?m)^--\s*\+goose\s+NO\s+TRANSACTION\s*$`)
	up                 = regexp.MustCompile(`(?m)^--\s*\+goose\s+Up\b.*$`)
	comment            = regexp.MustCompile(`--.*`)
	commentLine        = regexp.MustCompile(`(?m)^\s*--.*`)
	// unsplittable matches what statements would cut in two.
	unsplittable = regexp.MustCompile(`\$\w*\$|/\*|'[^'\n]*(?:;|--)[^'\n]*'`)
	// unread are goose's annotations that statements does not read.
	unread         = regexp.MustCompile(`(?m)^--\s*\+goose\s+(?:Down|StatementBegin)\b`)
	setLockTimeout = regexp.MustCompile(`(?i)^SET\s+lock_timeout\s*(?:=|TO)\s*(\S+)$`)
	// letsWritersPass matches statements with a lock that no writer waits for, nor behind.
	letsWritersPass = regexp.MustCompile(`(?i)^(?:` +
		`(?:CREATE(?:\s+UNIQUE)?\s+INDEX|DROP\s+INDEX|REINDEX\s+\w+)\s+CONCURRENTLY\b.*|` +
		`ALTER\s+TABLE\s+\S+\s+VALIDATE\s+CONSTRAINT\s+\w+)$`)
)

// statement is one of a migration without a transaction.
type statement struct {
	text        string
	lockTimeout string // set before it, "0" if it needs none
}

// statements returns the statements of a migration without a transaction, except SET
// lock_timeout.
func statements(migration string) iter.Seq[statement] {
	return func(yield func(statement) bool) {
		timeout := ""
		for text := range strings.SplitSeq(comment.ReplaceAllString(migration, ""), ";") {
			text = strings.TrimSpace(text)
			line := strings.Join(strings.Fields(text), " ")
			if set := setLockTimeout.FindStringSubmatch(line); set != nil {
				timeout = strings.Trim(set[1], "'")
				continue
			}
			s := statement{text, timeout}
			if letsWritersPass.MatchString(line) {
				s.lockTimeout = "0"
			} else if timeout == "0" {
				s.lockTimeout = ""
			}
			if text != "" && !yield(s) {
				return
			}
		}
	}
}

// unlimitedLockWait returns the first statement in the text of a migration without a
// transaction that would wait for a lock without a limit while writers wait behind it, or
// nothing.
func unlimitedLockWait(migration string) string {
	if !withoutTransaction.MatchString(migration) {
		return ""
	}
	for s := range statements(migration) {
		if s.lockTimeout == "" {
			return strings.Join(strings.Fields(s.text), " ")
		}
	}
	return ""
}

// unsplit returns the first part of a migration without a transaction that statements would
// misread, or nothing.
func unsplit(migration string) string {
	if !withoutTransaction.MatchString(migration) {
		return ""
	}
	if annotation := unread.FindString(migration); annotation != "" {
		return annotation
	}
	return unsplittable.FindString(commentLine.ReplaceAllString(migration, ""))
}

// limited returns a migration whose statements set their limits themselves, each for its
// own transaction. The statement of a migration without a transaction is one with them if
// both are sent in one message.
func limited(migration, lockTimeout string) string {
	setLimits := func(lockTimeout string) string {
		return fmt.Sprintf("SET LOCAL statement_timeout = 0;\nSET LOCAL lock_timeout = '%s';\n", lockTimeout)
	}
	if !withoutTransaction.MatchString(migration) {
		return up.ReplaceAllString(migration, "$0\n"+setLimits(lockTimeout))
	}
	var b strings.Builder
	b.WriteString("-- +goose NO TRANSACTION\n-- +goose Up\n")
	for s := range statements(migration) {
		if s.lockTimeout == "0" {
			b.WriteString(s.text + ";\n")
			continue
		}
		fmt.Fprintf(&b, "-- +goose StatementBegin\n%s%s;\n-- +goose StatementEnd\n", setLimits(s.lockTimeout), s.text)
	}
	return b.String()
}

// limitedFiles are migrations with limits.
type limitedFiles struct {
	fs.FS
	lockTimeout string
}

// Open implements fs.FS.
func (l limitedFiles) Open(name string) (fs.File, error) {
	file, err := l.FS.Open(name)
	if err != nil || !strings.HasSuffix(name, ".sql") {
		return file, err
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return nil, err
	}
	return limitedFile{file, strings.NewReader(limited(string(text), l.lockTimeout))}, nil
}

// limitedFile is a migration with its limits.
type limitedFile struct {
	fs.File
	text io.Reader
}

// Read implements fs.File.
func (f limitedFile) Read(p []byte) (int, error) { return f.text.Read(p) }
