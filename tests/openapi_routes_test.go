package tests

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// gatewayRoutes are the routes of the gateway itself.
var gatewayRoutes = []string{
	"GET /health", "GET /livez", "GET /readyz", "GET /openapi.json", "GET /docs", "GET /docs/{asset}",
	"GET /api/v1/auth/rate-limits", "DELETE /api/v1/auth/rate-limits",
	"POST /api/v1/realtime/ticket", "GET /api/v1/realtime/ws", "GET /api/v1/realtime/events",
}

// TestOpenAPIRoutes: openapi.json has exactly the routes of the services. They are read
// from the source, because the services' packages are internal.
func TestOpenAPIRoutes(t *testing.T) {
	t.Parallel()
	want := slices.Clone(gatewayRoutes)
	deadLetterRoutes := routesIn(t, "pkg/deadletter", map[string]string{"prefix": ""})
	mains, err := filepath.Glob(filepath.Join(root, "services/*-service/main.go"))
	if err != nil || len(mains) != 4 {
		t.Fatalf("services = %v, %v", mains, err)
	}
	for _, file := range mains {
		folder, err := filepath.Rel(root, filepath.Join(filepath.Dir(file), "internal/api"))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, routesIn(t, folder, nil)...)
		main, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !servesDeadLetters.Match(main) {
			continue
		}
		prefix := constantsIn(t, folder)["Prefix"]
		for _, route := range deadLetterRoutes {
			want = append(want, strings.Replace(route, " ", " "+prefix, 1))
		}
	}
	var got []string
	for _, op := range operations(t) {
		got = append(got, op.method+" "+op.path)
	}
	for _, route := range want {
		if !slices.Contains(got, route) {
			t.Errorf("%s is not in the document", route)
		}
	}
	for _, route := range got {
		if !slices.Contains(want, route) {
			t.Errorf("%s is in the document but not in the source", route)
		}
	}
}

// servesDeadLetters matches a main that serves the routes of dead letters.
var servesDeadLetters = regexp.MustCompile(`(?i)letters\.Routes\(api\.Prefix\)`)

// pattern is a path variable with the regular expression that mux takes.
var pattern = regexp.MustCompile(`\{(\w+):(?:[^{}]|\{[^{}]*\})*\}`)

// routesIn returns the routes in a package's tables, without the internal ones. known are
// the values of identifiers that are not constants.
func routesIn(t *testing.T, folder string, known map[string]string) []string {
	t.Helper()
	constants := constantsIn(t, folder)
	maps.Copy(constants, known)
	var routes []string
	inspect(t, folder, func(n ast.Node) {
		literal, ok := n.(*ast.CompositeLit)
		if !ok {
			return
		}
		method, path := memberOf(literal, "Method"), memberOf(literal, "Path")
		if method == nil || path == nil {
			return
		}
		name, ok := method.(*ast.SelectorExpr)
		text, known := textOf(path, constants)
		if !ok || !known {
			t.Fatalf("%s has a route that this test cannot read", folder)
		}
		if !strings.HasPrefix(text, "/internal/") {
			verb := strings.ToUpper(strings.TrimPrefix(name.Sel.Name, "Method"))
			routes = append(routes, verb+" "+pattern.ReplaceAllString(text, "{$1}"))
		}
	})
	if len(routes) == 0 {
		t.Fatalf("%s has no routes", folder)
	}
	return routes
}

// inspect visits the source of a package, without its tests.
func inspect(t *testing.T, folder string, visit func(ast.Node)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			visit(n)
			return true
		})
	}
}

func memberOf(literal *ast.CompositeLit, name string) ast.Expr {
	for _, element := range literal.Elts {
		pair, ok := element.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		if key, ok := pair.Key.(*ast.Ident); ok && key.Name == name {
			return pair.Value
		}
	}
	return nil
}

// constantsIn returns the string constants of a package, and of the packages that it takes
// paths from, by the names that it uses.
func constantsIn(t *testing.T, folder string) map[string]string {
	t.Helper()
	constants := map[string]string{}
	// The package comes last: its constants are made of the others.
	for _, from := range []struct{ prefix, folder string }{{"token.", "pkg/token"}, {"event.", "pkg/event"}, {"web.", "pkg/web"}, {"", folder}} {
		inspect(t, from.folder, func(n ast.Node) {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Names) != 1 || len(spec.Values) != 1 {
				return
			}
			if text, ok := textOf(spec.Values[0], constants); ok {
				constants[from.prefix+spec.Names[0].Name] = text
			}
		})
	}
	return constants
}

// textOf returns the value of a constant string expression.
func textOf(e ast.Expr, constants map[string]string) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil && e.Kind == token.STRING
	case *ast.Ident:
		text, ok := constants[e.Name]
		return text, ok
	case *ast.SelectorExpr:
		from, ok := e.X.(*ast.Ident)
		if !ok {
			return "", false
		}
		text, ok := constants[from.Name+"."+e.Sel.Name]
		return text, ok
	case *ast.BinaryExpr:
		left, ok := textOf(e.X, constants)
		right, alsoOK := textOf(e.Y, constants)
		return left + right, ok && alsoOK && e.Op == token.ADD
	}
	return "", false
}

// TestOpenAPICodes: openapi.json has exactly the error codes of the source.
func TestOpenAPICodes(t *testing.T) {
	t.Parallel()
	c, err := servedContract()
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, value := range c.model.Components.Schemas.GetOrZero("ErrorCode").Schema().Enum {
		documented[value.Value] = false
	}
	for _, kind := range []string{"pkg/*", "services/*/internal/*"} {
		folders, err := filepath.Glob(filepath.Join(root, kind))
		if err != nil {
			t.Fatal(err)
		}
		for _, folder := range folders {
			relative, err := filepath.Rel(root, folder)
			if err != nil {
				t.Fatal(err)
			}
			inspect(t, relative, func(n ast.Node) {
				code, ok := problemIn(n)
				if !ok {
					return
				}
				if _, there := documented[code]; !there {
					t.Errorf("the code %[2]s of %[1]s is not in the document", relative, code)
				}
				documented[code] = true
			})
		}
	}
	for code, made := range documented {
		if !made {
			t.Errorf("the code %s is in the document but not in the source", code)
		}
	}
}

// problemIn returns the code of the problem that a node creates.
func problemIn(n ast.Node) (code string, ok bool) {
	call, isCall := n.(*ast.CallExpr)
	if !isCall || len(call.Args) != 3 {
		return "", false
	}
	switch f := call.Fun.(type) {
	case *ast.Ident: // in the package itself
		ok = f.Name == "New"
	case *ast.SelectorExpr:
		from, isName := f.X.(*ast.Ident)
		ok = isName && from.Name == "problem" && f.Sel.Name == "New"
	}
	if !ok {
		return "", false
	}
	return textOf(call.Args[1], nil)
}
