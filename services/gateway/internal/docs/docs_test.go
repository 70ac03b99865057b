package docs_test

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/headgate/headgate/services/gateway/internal/docs"
)

func newDocs(t *testing.T) *docs.Docs {
	t.Helper()
	d, err := docs.New(`Acme "Ü:+"`)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// ask returns the response to a request with headers, given in pairs.
func ask(t *testing.T, d *docs.Docs, method, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, http.NoBody)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w
}

func TestServed(t *testing.T) {
	t.Parallel()
	d := newDocs(t)
	for path, want := range map[string]struct {
		contentType string
		compressed  bool
	}{
		"/openapi.json":                          {"application/json; charset=utf-8", true},
		"/docs":                                  {"text/html; charset=utf-8", false},
		"/docs/page.js":                          {"text/javascript; charset=utf-8", false},
		"/docs/page.css":                         {"text/css; charset=utf-8", false},
		"/docs/swagger-ui-bundle.js":             {"text/javascript; charset=utf-8", true},
		"/docs/swagger-ui-bundle.js.LICENSE.txt": {"text/plain; charset=utf-8", false},
		"/docs/swagger-ui.css":                   {"text/css; charset=utf-8", true},
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			plain := ask(t, d, http.MethodGet, path)
			h := plain.Header()
			if plain.Code != http.StatusOK || h.Get("Content-Type") != want.contentType || h.Get("Content-Encoding") != "" || h.Get("Cache-Control") != "no-cache" {
				t.Fatalf("plain = %d %v", plain.Code, h)
			}
			if h.Get("Content-Length") != strconv.Itoa(plain.Body.Len()) || plain.Body.Len() == 0 {
				t.Errorf("Content-Length = %s of %d", h.Get("Content-Length"), plain.Body.Len())
			}
			if again := ask(t, d, http.MethodGet, path, "If-None-Match", `"x", W/`+h.Get("ETag")); again.Code != http.StatusNotModified || again.Body.Len() > 0 {
				t.Errorf("with its ETag = %d, %d bytes", again.Code, again.Body.Len())
			}
			if again := ask(t, d, http.MethodGet, path, "If-None-Match", `"x"`); again.Code != http.StatusOK {
				t.Errorf("with another ETag = %d", again.Code)
			}
			if refused := ask(t, d, http.MethodGet, path, "Accept-Encoding", "br, gzip;q=0"); refused.Header().Get("Content-Encoding") != "" {
				t.Error("compressed for a client that refuses it")
			}

			packed := ask(t, d, http.MethodGet, path, "Accept-Encoding", "br, gzip")
			if compressed := packed.Header().Get("Content-Encoding") == "gzip"; compressed != want.compressed || compressed != (packed.Header().Get("Vary") == "Accept-Encoding") {
				t.Fatalf("compressed = %v, Vary = %q", compressed, packed.Header().Get("Vary"))
			}
			if !want.compressed {
				return
			}
			if packed.Header().Get("ETag") == h.Get("ETag") {
				t.Error("both forms have one ETag")
			}
			z, err := gzip.NewReader(packed.Body)
			if err != nil {
				t.Fatal(err)
			}
			if inflated, err := io.ReadAll(z); err != nil || string(inflated) != plain.Body.String() {
				t.Errorf("the two forms differ: %v", err)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	d := newDocs(t)
	for _, path := range []string{"/docs/", "/docs/nothing.js", "/docs/index.html", "/docs/vendor.json", "/docs/LICENSE", "/docs/swagger-ui.css.gz"} {
		if got := ask(t, d, http.MethodGet, path); got.Code != http.StatusNotFound || !strings.Contains(got.Body.String(), `"not_found"`) {
			t.Errorf("GET %s = %d %s", path, got.Code, got.Body)
		}
	}
	if got := ask(t, d, http.MethodPost, "/docs"); got.Code != http.StatusMethodNotAllowed || got.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST /docs = %d %v", got.Code, got.Header())
	}
}

// TestPage: the page loads nothing from other hosts, and every file that it names exists.
func TestPage(t *testing.T) {
	t.Parallel()
	d := newDocs(t)
	page := ask(t, d, http.MethodGet, "/docs")
	policy := page.Header().Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") {
		t.Errorf("policy = %s", policy)
	}
	if h := page.Header(); h.Get("Cross-Origin-Opener-Policy") != "same-origin" || h.Get("Permissions-Policy") == "" {
		t.Errorf("headers = %v, want the policies of a page", h)
	}
	named := 0
	for quoted := range strings.SplitSeq(page.Body.String(), `"`) {
		if !strings.HasPrefix(quoted, "docs/") && quoted != "openapi.json" {
			continue
		}
		named++
		if got := ask(t, d, http.MethodGet, "/"+quoted); got.Code != http.StatusOK {
			t.Errorf("%s = %d", quoted, got.Code)
		}
	}
	if named < 5 || strings.Contains(page.Body.String(), "://") || strings.Contains(page.Body.String(), "<script>") {
		t.Errorf("%d files are named on\n%s", named, page.Body)
	}
}

// TestVendored: the embedded files of Swagger UI are exactly those of the npm package.
func TestVendored(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("swagger-ui/vendor.json")
	if err != nil {
		t.Fatal(err)
	}
	var vendor struct {
		Package, Version string
		SHA256           map[string]string `json:"sha256"`
	}
	if err := json.Unmarshal(data, &vendor); err != nil || vendor.Package == "" || vendor.Version == "" {
		t.Fatalf("vendor.json = %+v, %v", vendor, err)
	}
	files, err := filepath.Glob("swagger-ui/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if filepath.Base(file) == "vendor.json" {
			continue
		}
		name, sum := hashed(t, file)
		if vendor.SHA256[name] != sum {
			t.Errorf("%s is not the file of %s %s; run vendor.sh", name, vendor.Package, vendor.Version)
		}
		delete(vendor.SHA256, name)
	}
	if len(vendor.SHA256) > 0 {
		t.Errorf("not there: %v", vendor.SHA256)
	}
}

// hashed returns the name and the hash of a file in its uncompressed form, as npm has it.
func hashed(t *testing.T, file string) (name, sum string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	name, gzipped := strings.CutSuffix(filepath.Base(file), ".gz")
	if gzipped {
		if r, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		t.Fatal(err)
	}
	return name, hex.EncodeToString(h.Sum(nil))
}

type object = map[string]any

func document(t *testing.T) object {
	t.Helper()
	var d object
	if err := json.Unmarshal(ask(t, newDocs(t), http.MethodGet, "/openapi.json").Body.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDocument checks what generators and readers rely on. The whole-system tests check
// that the document is valid and matches the responses.
func TestDocument(t *testing.T) {
	t.Parallel()
	d := document(t)
	if d["openapi"] != "3.1.0" || d["x-shared"] != nil {
		t.Errorf("openapi = %v, x-shared = %v", d["openapi"], d["x-shared"])
	}
	tags := map[string]bool{}
	for _, tag := range d["tags"].([]any) {
		tags[tag.(object)["name"].(string)] = false
	}
	ids := map[string]string{}
	routes := newDocs(t).Routes()
	for _, route := range routes {
		name := route.Method + " " + route.Path
		op, ok := d["paths"].(object)[route.Path].(object)[strings.ToLower(route.Method)].(object)
		if !ok {
			t.Fatalf("%s is not in the document", name)
		}
		id, _ := op["operationId"].(string)
		if id == "" || ids[id] != "" {
			t.Errorf("%s has the operationId %q, as has %q", name, id, ids[id])
		}
		ids[id] = name
		if summary, _ := op["summary"].(string); summary == "" {
			t.Errorf("%s has no summary", name)
		}
		for _, tag := range op["tags"].([]any) {
			if _, ok := tags[tag.(string)]; !ok {
				t.Errorf("%s has the tag %q, which is not described", name, tag)
			}
			tags[tag.(string)] = true
		}
	}
	for tag, used := range tags {
		if !used {
			t.Errorf("nothing has the tag %q", tag)
		}
	}
	if !slices.Contains(routes, docs.Route{Method: "DELETE", Path: "/api/v1/auth/sessions/{id}"}) {
		t.Errorf("routes = %v", routes)
	}
}

// TestReferences: every reference resolves, and every component is used, except for the
// response to an unsupported method, which belongs to no operation.
func TestReferences(t *testing.T) {
	t.Parallel()
	d := document(t)
	used := map[string]bool{"#/components/responses/MethodNotAllowed": true, "#/components/securitySchemes/bearer": true}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case object:
			for name, inner := range v {
				if ref, ok := inner.(string); ok && name == "$ref" {
					used[ref] = true
				}
				walk(inner)
			}
		case []any:
			for _, inner := range v {
				walk(inner)
			}
		}
	}
	walk(d)
	there := map[string]bool{}
	for kind, members := range d["components"].(object) {
		for name := range members.(object) {
			there["#/components/"+kind+"/"+name] = true
		}
	}
	for ref := range used {
		if !there[ref] {
			t.Errorf("%s is not there", ref)
		}
	}
	for ref := range there {
		if !used[ref] {
			t.Errorf("%s is not used", ref)
		}
	}
}

// The document and the page name the product as it is configured.
func TestBrand(t *testing.T) {
	t.Parallel()
	d := newDocs(t)
	page := ask(t, d, http.MethodGet, "/docs").Body.String()
	if !strings.Contains(page, "<title>Acme &#34;Ü:+&#34; API</title>") || strings.Contains(page, "Headgate") {
		t.Errorf("page = %s", page)
	}
	var document struct{ Info struct{ Title string } }
	text := ask(t, d, http.MethodGet, "/openapi.json").Body.String()
	if err := json.Unmarshal([]byte(text), &document); err != nil || document.Info.Title != `Acme "Ü:+"` || strings.Contains(text, "Headgate") {
		t.Errorf("title = %q, %v", document.Info.Title, err)
	}
}
