// Vocabulary fails on words that the project has given up, so that they do not
// come back. The table of terms is in terms.go; ARCHITECTURE.md (Concepts) has the
// words to use instead.
//
// It reads every Go file that is not generated, tests and tools included, and checks
//
//   - declared identifiers, split into words: packages, types, functions, methods,
//     constants, variables, fields, parameters and locals. Uses are not checked, since
//     the declaration already is;
//   - metric names (string literals that begin with headgate_, and the Name of
//     prometheus options) and the help text of metrics;
//   - log messages: the message of a call such as log.Info or slog.WarnContext;
//   - errors: the text of errors.New, fmt.Errorf and problem.New.
//
// In comments, and in Markdown, HTML and OpenAPI files, it checks only the words that
// have no other meaning here. SQL is not checked: old migrations stay as they are.
//
// Three choices keep false positives out:
//
//   - Words are compared whole, after an identifier was split: "gateway", "headgate"
//     and "threshold" are one word each and match nothing.
//   - A word that is ordinary English elsewhere ("who", "about", "look", "alone")
//     counts only if it is the whole identifier, so that LookPath or lookAhead pass. A
//     word that is also a good name for something else ("head" of a list, "rejected",
//     "once", "book") counts only as the name of a type. None of these counts in
//     metrics, log messages, errors or prose.
//   - "letter" is fine after "dead", as in DeadLetter and dead_letters.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: vocabulary FOLDER")
		os.Exit(2)
	}
	found, err := run(os.Args[1], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if found > 0 {
		fmt.Fprintf(os.Stderr, "%d uses of retired words\n", found)
		os.Exit(1)
	}
}

// run writes one line for each retired word below folder and returns their number.
func run(folder string, out io.Writer) (int, error) {
	findings, err := check(os.DirFS(folder))
	if err != nil {
		return 0, err
	}
	for _, f := range findings {
		if _, err := fmt.Fprintln(out, f); err != nil {
			return 0, fmt.Errorf("print findings: %w", err)
		}
	}
	return len(findings), nil
}
