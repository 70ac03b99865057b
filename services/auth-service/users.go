package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/services/auth-service/internal/account"
)

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
	const usage = "users import [-report FILE] [-ids FILE] FILE"
	report, ids := "", ""
	operands, err := parse(usage, args, func(f *flag.FlagSet) {
		f.StringVar(&report, "report", "", "")
		f.StringVar(&ids, "ids", "", "")
	})
	if err != nil {
		return err
	}
	if len(operands) != 1 {
		return errors.New("usage: auth-service " + usage)
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
	report, ids = cmp.Or(report, operands[0]+".refused"), cmp.Or(ids, operands[0]+".ids")
	refused, err := create(report)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, refused.Close()) }()
	renamed, err := create(ids)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, renamed.Close()) }()
	return withDomain(ctx, cfg, func(ctx context.Context, d domain) error {
		i := importer{
			accounts: d.accounts, report: json.NewEncoder(refused), ids: csv.NewWriter(renamed),
			size: info.Size(), started: time.Now(), lineOf: map[uuid.UUID]int{}, lineOfSource: map[string]int{},
		}
		err := i.read(ctx, in)
		i.finishProgress()
		switch {
		case err != nil:
			return fmt.Errorf("import stopped after line %d; run it again to continue: %w", i.done, err)
		case i.renamed > 0:
			fmt.Fprintf(os.Stderr, "accounts with other ids than in the file: %d; see %s\n", i.renamed, ids)
		}
		if i.refused > 0 {
			return fmt.Errorf("lines refused: %d; see %s", i.refused, report)
		}
		return nil
	})
}

func create(file string) (*os.File, error) {
	return os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600) //nolint:gosec // The operator names the file.
}

type importer struct {
	accounts *account.Accounts
	report   *json.Encoder
	ids      *csv.Writer // of the source and of the accounts, where they differ
	size     int64       // size of the file in bytes
	started  time.Time

	batch                               []account.Imported
	lines                               []int             // of the accounts in the batch
	lineOf                              map[uuid.UUID]int // by the id of the account: the line of this file that it belongs to
	lineOfSource                        map[string]int    // by sourceId
	pending                             []refusedLine     // of the lines since the last flush
	line, done                          int
	bytes                               int64
	created, existing, refused, renamed int
	shown                               time.Time
}

func (i *importer) read(ctx context.Context, in io.Reader) error {
	lines := bufio.NewReaderSize(io.TeeReader(in, i), maxLine)
	for ended := false; !ended; {
		line, err := nextLine(lines)
		ended = errors.Is(err, io.EOF)
		i.line++
		switch {
		case err == nil || ended:
			i.add(trimLine(line, i.line))
			err = nil
		case errors.Is(err, errLongLine):
			i.refuse(i.line, addressIn(line), err)
			err = nil
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", i.line, err)
		}
		if len(i.batch)+len(i.pending) >= importBatch || ended {
			if err := i.flush(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// Write counts what is read of the file.
func (i *importer) Write(p []byte) (int, error) {
	i.bytes += int64(len(p))
	return len(p), nil
}

func (i *importer) add(line []byte) {
	if len(line) == 0 {
		return
	}
	in, err := parseRecord(line)
	if err == nil {
		err = i.accounts.CheckImport(in)
	}
	if first, ok := i.lineOfSource[in.SourceID]; ok && err == nil {
		err = fmt.Errorf("sourceId: same id as line %d", first)
	}
	if err != nil {
		i.refuse(i.line, cmp.Or(in.Email, addressIn(line)), err)
		return
	}
	if in.SourceID != "" {
		i.lineOfSource[in.SourceID] = i.line
	}
	i.batch, i.lines = append(i.batch, in), append(i.lines, i.line)
}

func (i *importer) refuse(line int, email string, reason error) {
	i.refused++
	i.pending = append(i.pending, refusedLine{Line: line, Email: email, Reason: reason.Error()})
}

func (i *importer) flush(ctx context.Context) error {
	results, err := i.accounts.Import(ctx, i.batch)
	if err != nil {
		return err
	}
	for n, result := range results {
		if err := i.count(i.lines[n], i.batch[n], result); err != nil {
			return err
		}
	}
	slices.SortFunc(i.pending, func(a, b refusedLine) int { return a.Line - b.Line })
	for _, refused := range i.pending {
		if err := i.report.Encode(refused); err != nil {
			return err
		}
	}
	i.ids.Flush()
	i.pending = i.pending[:0]
	i.batch, i.lines, i.done = i.batch[:0], i.lines[:0], i.line
	i.showProgress()
	return i.ids.Error()
}

// count counts the result of a line. A line about the account of an earlier line is refused,
// whichever of the two an earlier import has stored.
func (i *importer) count(line int, in account.Imported, result account.ImportResult) error {
	id, err := uuid.Parse(result.ID)
	if err != nil {
		return fmt.Errorf("line %d: %w", line, err)
	}
	if first, ok := i.lineOf[id]; ok {
		what := "email: same address"
		if in.ID != "" {
			what = "same id or address"
		}
		i.refuse(line, in.Email, fmt.Errorf("%s as line %d", what, first))
		return nil
	}
	switch result.Outcome {
	case account.ImportEmailTaken:
		i.refuse(line, in.Email, errors.New("email: another account has this address"))
		return nil
	case account.ImportIDTaken:
		i.refuse(line, in.Email, errors.New("id: another account has this id"))
		return nil
	case account.ImportCreated:
		i.created++
	case account.ImportExists:
		i.existing++
	}
	i.lineOf[id] = line
	source := cmp.Or(in.SourceID, in.ID)
	if source == "" || source == result.ID {
		return nil
	}
	i.renamed++
	return i.ids.Write([]string{source, result.ID})
}
