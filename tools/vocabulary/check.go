package main

import (
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// finding is a retired word and where it is.
type finding struct {
	file  string
	line  int
	where string // the identifier, or what else the word is in
	form  string
	use   string
}

func (f finding) String() string {
	return fmt.Sprintf("%s:%d: %q in %s → use %s", f.file, f.line, f.form, f.where, f.use)
}

// check returns what is wrong in the files of tree, by file and line. It leaves out
// folders that begin with a dot, and packages of others.
func check(tree fs.FS) ([]finding, error) {
	var findings []finding
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name != "." && strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules" {
				return fs.SkipDir
			}
			return nil
		}
		if !isSource(name) && !isDocument(name) {
			return nil
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		found, err := checkFile(name, text)
		findings = append(findings, found...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("check vocabulary: %w", err)
	}
	slices.SortStableFunc(findings, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.line, b.line), cmp.Compare(a.form, b.form))
	})
	return slices.Compact(findings), nil
}

func checkFile(name string, text []byte) ([]finding, error) {
	if isSource(name) {
		return checkSource(name, text)
	}
	return checkDocument(name, string(text)), nil
}

func isSource(name string) bool { return path.Ext(name) == ".go" }

func isDocument(name string) bool {
	switch path.Ext(name) {
	case ".md", ".html":
		return true
	}
	return path.Base(name) == "openapi.yaml"
}

func checkDocument(name, text string) []finding {
	var findings []finding
	for _, m := range inProse(text) {
		line := 1 + strings.Count(text[:m.offset], "\n")
		findings = append(findings, finding{name, line, "text", m.form, m.use})
	}
	return findings
}
