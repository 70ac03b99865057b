package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
)

// source collects the findings of one Go file.
type source struct {
	name     string
	files    *token.FileSet
	findings []finding
}

// checkSource returns the retired words of a Go file, none if it is generated.
func checkSource(name string, text []byte) ([]finding, error) {
	s := &source{name: name, files: token.NewFileSet()}
	file, err := parser.ParseFile(s.files, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	if ast.IsGenerated(file) {
		return nil, nil
	}
	s.identifiers(file.Name)
	ast.Inspect(file, func(node ast.Node) bool {
		s.declarations(node)
		s.texts(node)
		return true
	})
	for _, group := range file.Comments {
		begin, end := s.files.Position(group.Pos()).Offset, s.files.Position(group.End()).Offset
		for _, m := range inProse(string(text[begin:end])) {
			s.add(group.Pos()+token.Pos(m.offset), "a comment", m)
		}
	}
	return s.findings, nil
}

func (s *source) add(pos token.Pos, where string, m match) {
	s.findings = append(s.findings, finding{s.name, s.files.Position(pos).Line, where, m.form, m.use})
}

// declarations checks the identifiers that node declares.
func (s *source) declarations(node ast.Node) {
	switch n := node.(type) {
	case *ast.FuncDecl:
		s.identifiers(n.Name)
	case *ast.TypeSpec:
		s.identifier(n.Name, inTypeName(n.Name.Name))
	case *ast.ValueSpec:
		s.identifiers(n.Names...)
	case *ast.Field: // of a struct, an interface, parameters and results
		s.identifiers(n.Names...)
	case *ast.LabeledStmt:
		s.identifiers(n.Label)
	case *ast.AssignStmt:
		if n.Tok == token.DEFINE {
			s.expressions(n.Lhs...)
		}
	case *ast.RangeStmt:
		if n.Tok == token.DEFINE {
			s.expressions(n.Key, n.Value)
		}
	}
}

func (s *source) expressions(list ...ast.Expr) {
	for _, e := range list {
		if name, ok := e.(*ast.Ident); ok {
			s.identifiers(name)
		}
	}
}

func (s *source) identifiers(names ...*ast.Ident) {
	for _, name := range names {
		s.identifier(name, inIdentifier(name.Name))
	}
}

func (s *source) identifier(name *ast.Ident, found []match) {
	for _, m := range found {
		s.add(name.Pos(), name.Name, m)
	}
}

// texts checks the metric, the log message or the error that node is.
func (s *source) texts(node ast.Node) {
	switch n := node.(type) {
	case *ast.BasicLit:
		if text, ok := literal(n); ok && strings.HasPrefix(text, metricPrefix) && !strings.ContainsAny(text, " \n") {
			s.text(n, "a name that begins with headgate_")
		}
	case *ast.CompositeLit:
		if strings.HasSuffix(lastName(n.Type), "Opts") {
			s.options(n)
		}
	case *ast.CallExpr:
		if len(n.Args) > 1 && isMetricName(n.Args[0]) {
			for _, argument := range n.Args[1:] {
				s.text(argument, "the help of a metric")
			}
		}
		function, ok := n.Fun.(*ast.SelectorExpr)
		if !ok {
			return
		}
		if function.Sel.Name == "NewDesc" && len(n.Args) > 1 {
			s.text(n.Args[1], "the help of a metric")
		}
		if at, ok := errorArgument[lastName(function.X)+"."+function.Sel.Name]; ok && len(n.Args) > at {
			s.text(n.Args[at], "an error")
		}
		if at, ok := messageArgument[function.Sel.Name]; ok && len(n.Args) > at && !notLoggers[lastName(function.X)] {
			s.text(n.Args[at], "a log message")
		}
	}
}

// isMetricName reports whether e is the name of a metric, as the first argument of a
// function that declares one is.
func isMetricName(e ast.Expr) bool {
	l, ok := e.(*ast.BasicLit)
	if !ok {
		return false
	}
	text, ok := literal(l)
	return ok && strings.HasPrefix(text, metricPrefix)
}

const metricPrefix = "headgate_"

// errorArgument is which argument the text of an error is.
var errorArgument = map[string]int{"errors.New": 0, "fmt.Errorf": 0, "problem.New": 2}

// messageArgument is which argument of a log call the message is.
var messageArgument = map[string]int{
	"Debug": 0, "Info": 0, "Warn": 0, "Error": 0,
	"DebugContext": 1, "InfoContext": 1, "WarnContext": 1, "ErrorContext": 1,
	"Log": 2, "LogAttrs": 2,
}

// notLoggers are the names of variables whose Error method does not log.
var notLoggers = map[string]bool{"t": true, "b": true, "f": true, "tb": true}

func (s *source) options(opts *ast.CompositeLit) {
	for _, element := range opts.Elts {
		member, ok := element.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		switch lastName(member.Key) {
		case "Name":
			s.text(member.Value, "a metric name")
		case "Help":
			s.text(member.Value, "the help of a metric")
		}
	}
}

// text checks an expression that is a string, or several that are added.
func (s *source) text(e ast.Expr, where string) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if text, ok := literal(e); ok {
			for _, m := range inText(text) {
				s.add(e.Pos(), where, m)
			}
		}
	case *ast.BinaryExpr:
		s.text(e.X, where)
		s.text(e.Y, where)
	}
}

func literal(l *ast.BasicLit) (string, bool) {
	if l.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(l.Value)
	return text, err == nil
}

// lastName returns the name at the end of x.y.name, or nothing.
func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}
