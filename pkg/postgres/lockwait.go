package postgres

import (
	"regexp"
	"strings"
)

var (
	// withoutTransaction is goose's annotation of a file.
	withoutTransaction = regexp.MustCompile(`(?m)^--\s*\+goose\s+NO\s+TRANSACTION\s*$`)
	comment            = regexp.MustCompile(`--.*`)
	setLockTimeout     = regexp.MustCompile(`(?i)^SET\s+lock_timeout\s*(?:=|TO)\s*(\S+)$`)
	// letsWritersPass matches statements with a lock that no writer waits for, nor behind.
	letsWritersPass = regexp.MustCompile(`(?i)^(?:` +
		`(?:CREATE(?:\s+UNIQUE)?\s+INDEX|DROP\s+INDEX|REINDEX\s+\w+)\s+CONCURRENTLY\b.*|` +
		`ALTER\s+TABLE\s+\S+\s+VALIDATE\s+CONSTRAINT\s+\w+)$`)
)

// unlimitedLockWait returns the first statement in the text of a migration that would wait
// for a lock without a limit while writers wait behind it, or nothing.
func unlimitedLockWait(migration string) string {
	limited := false
	for statement := range strings.SplitSeq(comment.ReplaceAllString(migration, ""), ";") {
		statement = strings.Join(strings.Fields(statement), " ")
		if set := setLockTimeout.FindStringSubmatch(statement); set != nil {
			limited = strings.Trim(set[1], "'") != "0"
			continue
		}
		if statement != "" && !limited && !letsWritersPass.MatchString(statement) {
			return statement
		}
	}
	return ""
}
