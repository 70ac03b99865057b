// Package docs serves the documentation of the API: the OpenAPI document of all public
// routes, and a page that shows it. The page loads nothing from other hosts.
package docs

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
)

var (
	//go:embed openapi.yaml
	source []byte

	//go:embed page/index.html
	index []byte

	//go:embed page/* swagger-ui/*
	assets embed.FS
)

// policy is the strictest one that Swagger UI works with. Its images are in its style
// sheet.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// The paths that Docs serves.
const (
	DocumentPath = "/openapi.json"
	PagePath     = "/docs"
)

// Docs serves the document and the page. It is safe for concurrent use.
type Docs struct {
	files  map[string]*file // by path
	routes []Route
}

// Route is a method and the pattern of a path, such as /users/{id}.
type Route struct{ Method, Path string }

// New returns the docs of the embedded document, which name the product brand. It fails if
// the document is invalid.
func New(brand string) (*Docs, error) {
	document, err := toJSON(source)
	if err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	title, err := json.Marshal(brand)
	if err != nil {
		return nil, fmt.Errorf("encode the name of the product: %w", err)
	}
	document = bytes.Replace(document, []byte(`"title":"Headgate"`), append([]byte(`"title":`), title...), 1)
	routes, err := routesOf(document)
	if err != nil {
		return nil, fmt.Errorf("read the routes of openapi.yaml: %w", err)
	}
	d := &Docs{routes: routes, files: map[string]*file{}}
	if d.files[DocumentPath], err = compress(document, "application/json; charset=utf-8"); err != nil {
		return nil, err
	}
	if err := d.addAssets(); err != nil {
		return nil, err
	}
	delete(d.files, PagePath+"/index.html")
	page := newPlain(bytes.Replace(index, []byte("Headgate"), []byte(html.EscapeString(brand)), 1), types[".html"])
	page.policy = policy
	d.files[PagePath] = page
	return d, nil
}

// types are the content types by extension. Files with other extensions are not served.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".txt":  "text/plain; charset=utf-8",
}

func (d *Docs) addAssets() error {
	for _, folder := range []string{"page", "swagger-ui"} {
		entries, err := assets.ReadDir(folder)
		if err != nil {
			return fmt.Errorf("read assets: %w", err)
		}
		for _, entry := range entries {
			data, err := assets.ReadFile(folder + "/" + entry.Name())
			if err != nil {
				return fmt.Errorf("read assets: %w", err)
			}
			name, gzipped := strings.CutSuffix(entry.Name(), ".gz")
			contentType := types[path.Ext(name)]
			switch {
			case contentType == "":
			case gzipped:
				d.files[PagePath+"/"+name] = newGzipped(data, contentType)
			default:
				d.files[PagePath+"/"+name] = newPlain(data, contentType)
			}
		}
	}
	return nil
}

// Routes returns the routes of the document, ordered by path and method. HEAD is not among
// them: it is supported wherever GET is.
func (d *Docs) Routes() []Route { return slices.Clone(d.routes) }

func routesOf(document []byte) ([]Route, error) {
	var in struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(document, &in); err != nil {
		return nil, err
	}
	var routes []Route
	for path, item := range in.Paths {
		for name := range item {
			method := strings.ToUpper(name)
			if slices.Contains(methods, method) {
				routes = append(routes, Route{method, path})
			}
		}
	}
	if len(routes) == 0 {
		return nil, errors.New("no routes")
	}
	slices.SortFunc(routes, func(a, b Route) int {
		return strings.Compare(a.Path+" "+a.Method, b.Path+" "+b.Method)
	})
	return routes, nil
}

// methods are the members of a path item that are operations.
var methods = []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete, http.MethodOptions, http.MethodHead, http.MethodPatch, http.MethodTrace}

// ServeHTTP implements http.Handler for DocumentPath, PagePath and everything below it.
func (d *Docs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, PagePath+"/") {
		web.SetRoute(r.Context(), PagePath+"/{asset}")
	} else {
		web.SetRoute(r.Context(), r.URL.Path)
	}
	f := d.files[r.URL.Path]
	switch {
	case f == nil:
		web.Fail(w, r, problem.ErrNotFound)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		web.Fail(w, r, problem.ErrMethod)
	default:
		f.serve(w, r)
	}
}
