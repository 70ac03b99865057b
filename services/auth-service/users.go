package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// record is a line of an import or an export.
type record struct {
	ID            string     `json:"id,omitempty"`
	Email         string     `json:"email"`
	EmailVerified bool       `json:"emailVerified,omitempty"`
	Name          string     `json:"name"`
	Role          string     `json:"role,omitempty"`
	Status        string     `json:"status,omitempty"`
	PasswordHash  string     `json:"passwordHash,omitempty"`
	CreatedAt     *time.Time `json:"createdAt,omitempty"`
}

// refusedLine is a line in the report of an import.
type refusedLine struct {
	Line   int    `json:"line"`
	Email  string `json:"email,omitempty"`
	Reason string `json:"reason"`
}

const (
	importBatch = 500
	maxLine     = 64 << 10
)

// importUsers is the command "users import". It reads NDJSON. It can be repeated with
// the same file, after it was interrupted or refused lines were corrected: accounts
// that exist are skipped.
func importUsers(ctx context.Context, cfg Config, args []string) (err error) {
	const usage = "users import [-report FILE] FILE"
	report := ""
	operands, err := parse(usage, args, func(f *flag.FlagSet) { f.StringVar(&report, "report", "", "") })
	if err != nil {
		return err
	}
	if len(operands) != 1 {
		return errors.New("usage: auth-service " + usage)
	}
	if report == "" {
		report = operands[0] + ".refused"
	}
	in, err := os.Open(operands[0])
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(report, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	return withDomain(ctx, cfg, func(ctx context.Context, d domain) error {
		i := importer{accounts: d.accounts, report: json.NewEncoder(out), size: info.Size(), started: time.Now()}
		err := i.read(ctx, in)
		i.finishProgress()
		if err != nil {
			return fmt.Errorf("import stopped after line %d; run it again to continue: %w", i.done, err)
		}
		if i.refused > 0 {
			return fmt.Errorf("%d lines were refused: see %s", i.refused, report)
		}
		return nil
	})
}

type importer struct {
	accounts *account.Accounts
	report   *json.Encoder
	size     int64 // size of the file in bytes
	started  time.Time

	batch                      []account.Imported
	lines                      []int // of the accounts in the batch
	line, done                 int
	bytes                      int64
	created, existing, refused int
	shown                      time.Time
}

func (i *importer) read(ctx context.Context, in io.Reader) error {
	lines := bufio.NewReaderSize(in, maxLine)
	for ended := false; !ended; {
		line, err := nextLine(lines)
		ended = errors.Is(err, io.EOF)
		i.line++
		i.bytes += int64(len(line))
		switch {
		case err == nil || ended:
			err = i.add(bytes.TrimSpace(line))
		case errors.Is(err, errLongLine):
			err = i.refuse(i.line, "", err)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", i.line, err)
		}
		if len(i.batch) == importBatch || ended {
			if err := i.flush(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

var errLongLine = errors.New("line is longer than 64 KiB")

// nextLine returns the next line, which is valid until the next call. The last line
// comes with io.EOF. For a line that is too long, it returns only the end of it, with
// errLongLine.
func nextLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = in.ReadSlice('\n')
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return line, errLongLine
}

func (i *importer) add(line []byte) error {
	if len(line) == 0 {
		return nil
	}
	in, err := parseRecord(line)
	if err == nil {
		err = i.accounts.CheckImport(in)
	}
	if err != nil {
		return i.refuse(i.line, in.Email, err)
	}
	i.batch, i.lines = append(i.batch, in), append(i.lines, i.line)
	return nil
}

// parseRecord parses a line. It fails on unknown fields: a hash under a wrong name would
// create an account that nobody can sign in to. Its errors are for the person who wrote the
// file.
func parseRecord(line []byte) (account.Imported, error) {
	var r record
	if err := jsonv2.Unmarshal(line, &r, jsonv2.RejectUnknownMembers(true)); err != nil {
		return account.Imported{}, recordFault(err)
	}
	in := account.Imported{
		ID: r.ID, Email: r.Email, EmailVerified: r.EmailVerified, Name: r.Name, Role: r.Role, Status: r.Status, PasswordHash: r.PasswordHash,
	}
	if r.CreatedAt != nil {
		in.CreatedAt = *r.CreatedAt
	}
	return in, nil
}

// recordFault returns what is wrong with a line that jsonv2 cannot decode because of err.
func recordFault(err error) error {
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return problem.Validation(problem.Field{Field: syntactic.JSONPointer.LastToken(), Code: "duplicate_field", Message: "Duplicate field."})
		}
		return fmt.Errorf("invalid JSON at byte %d: %w", syntactic.ByteOffset, errNoObject)
	}
	semantic, ok := errors.AsType[*jsonv2.SemanticError](err)
	if !ok || semantic.JSONPointer == "" {
		return errNoObject
	}
	f := problem.Field{Field: semantic.JSONPointer.LastToken(), Code: "invalid_type", Message: "Must be a string."}
	switch {
	case errors.Is(err, jsonv2.ErrUnknownName):
		f.Code, f.Message = "unknown_field", "Unknown field."
	case f.Field == "emailVerified":
		f.Message = "Must be true or false."
	case f.Field == "createdAt":
		f.Code, f.Message = "invalid_format", "Invalid timestamp: use RFC 3339, for example 2026-01-31T12:00:00Z."
	}
	return problem.Validation(f)
}

var errNoObject = errors.New("a line must be one JSON object")

func (i *importer) refuse(line int, email string, reason error) error {
	i.refused++
	return i.report.Encode(refusedLine{Line: line, Email: email, Reason: reason.Error()})
}

func (i *importer) flush(ctx context.Context) error {
	outcomes, err := i.accounts.Import(ctx, i.batch)
	if err != nil {
		return err
	}
	for n, outcome := range outcomes {
		switch outcome {
		case account.ImportCreated:
			i.created++
		case account.ImportExists:
			i.existing++
		case account.ImportConflict:
			if err := i.refuse(i.lines[n], i.batch[n].Email, errors.New("another account has this email or id")); err != nil {
				return err
			}
		}
	}
	i.batch, i.lines, i.done = i.batch[:0], i.lines[:0], i.line
	i.showProgress()
	return nil
}

// showProgress draws the progress, at most a few times a second.
func (i *importer) showProgress() {
	if time.Since(i.shown) < 200*time.Millisecond {
		return
	}
	i.shown = time.Now()
	i.drawProgress()
}

// finishProgress draws the final state.
func (i *importer) finishProgress() {
	i.drawProgress()
	fmt.Fprintln(os.Stderr)
}

func (i *importer) drawProgress() {
	const width = 30
	share := 1.0
	if i.size > 0 {
		share = min(1, float64(i.bytes)/float64(i.size))
	}
	bar := make([]byte, width)
	for n := range bar {
		bar[n] = '.'
		if float64(n) < share*width {
			bar[n] = '#'
		}
	}
	rate := float64(i.line) / max(time.Since(i.started).Seconds(), 0.001)
	fmt.Fprintf(os.Stderr, "\r[%s] %3.0f%%  %d created, %d existing, %d refused, %.0f/s ", bar, share*100, i.created, i.existing, i.refused, rate)
}

// exportUsers is the command "users export". It writes what importUsers reads. The output
// contains password hashes, but no second factors: their secrets are sealed with keys of
// this deployment.
func exportUsers(ctx context.Context, cfg Config, args []string) error {
	if len(args) > 0 {
		return errors.New("usage: auth-service users export > FILE")
	}
	return withDomain(ctx, cfg, func(ctx context.Context, d domain) error {
		w := bufio.NewWriter(os.Stdout)
		encode, factors := json.NewEncoder(w), 0
		err := d.accounts.Export(ctx, func(a account.Account) error {
			if a.MFAEnabled {
				factors++
			}
			return encode.Encode(record{
				ID: a.ID, Email: a.Email.Address, EmailVerified: a.EmailVerified, Name: a.Name,
				Role: a.Role, Status: a.Status, PasswordHash: a.PasswordHash, CreatedAt: &a.CreatedAt,
			})
		})
		if factors > 0 {
			fmt.Fprintf(os.Stderr, "warning: second factors are not exported; %d accounts must set theirs up again\n", factors)
		}
		return errors.Join(err, w.Flush())
	})
}
