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

// gatewayRoutes are those that no service has.
var gatewayRoutes = []string{
	"GET /health", "GET /livez", "GET /readyz", "GET /openapi.json", "GET /docs", "GET /docs/{asset}",
	"GET /api/v1/auth/rate-limits", "DELETE /api/v1/auth/rate-limits",
}

// TestOpenAPIRoutes: the document has the routes of the services' tables, all of them
// and no others. The tables are read as source, for nobody else may import them.
func TestOpenAPIRoutes(t *testing.T) {
	t.Parallel()
	want := slices.Clone(gatewayRoutes)
	letters := routesIn(t, "pkg/deadletter", map[string]string{"prefix": ""})
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
		if !strings.Contains(string(main), "letters.Routes(api.Prefix)") {
			continue
		}
		prefix := constantsIn(t, folder)["Prefix"]
		for _, route := range letters {
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
			t.Errorf("%s is in the document and nowhere else", route)
		}
	}
}

// pattern is a variable of a path with the form that mux gives it.
var pattern = regexp.MustCompile(`\{(\w+):(?:[^{}]|\{[^{}]*\})*\}`)

// routesIn returns the routes in a package's tables, but for those that the gateway
// does not let pass. known are the values of what is no constant.
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

// constantsIn returns the texts that are constants of a package, and of those that
// it takes paths from, by the names that it uses.
func constantsIn(t *testing.T, folder string) map[string]string {
	t.Helper()
	constants := map[string]string{}
	for prefix, folder := range map[string]string{"token.": "pkg/token", "event.": "pkg/event", "": folder} {
		inspect(t, folder, func(n ast.Node) {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Names) != 1 || len(spec.Values) != 1 {
				return
			}
			if text, ok := textOf(spec.Values[0], constants); ok {
				constants[prefix+spec.Names[0].Name] = text
			}
		})
	}
	return constants
}

// textOf returns the value of an expression that is a constant text.
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

// TestOpenAPICodes: the document has the code of every problem that the source makes,
// and no other.
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
					t.Errorf("%s has the code %s, the document has not", relative, code)
				}
				documented[code] = true
			})
		}
	}
	for code, made := range documented {
		if !made {
			t.Errorf("the document has the code %s, the source has not", code)
		}
	}
}

// problemIn returns the code of the problem that a node makes.
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
