package tests

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	faults "github.com/pb33f/libopenapi-validator/errors"
	"github.com/pb33f/libopenapi-validator/router"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"
)

// httpClient is the client of the tests. A request fails if the gateway's response differs
// from openapi.json.
var httpClient = &http.Client{Transport: checking{}}

// checking is a transport that compares requests to the gateway, and its responses, with
// the gateway's openapi.json.
type checking struct{}

func (checking) RoundTrip(r *http.Request) (*http.Response, error) {
	gateway, err := gatewayPort()
	if err != nil {
		return nil, err
	}
	if r.URL.Port() != gateway {
		return http.DefaultTransport.RoundTrip(r)
	}
	known, err := servedContract()
	if err != nil {
		return nil, err
	}
	var sent []byte
	if r.Body != nil {
		if sent, err = readAll(r.Context(), r.Body); err != nil {
			return nil, err
		}
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(sent))
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if endless(res) {
		return res, known.check(r, sent, res, nil)
	}
	got, err := readAll(r.Context(), res.Body)
	if err != nil {
		return nil, err
	}
	if err := known.check(r, sent, res, got); err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(got))
	return res, nil
}

// endless reports whether the body of a response ends only when one of the sides wants it.
func endless(res *http.Response) bool {
	return res.StatusCode == http.StatusSwitchingProtocols || strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream")
}

var gatewayPort = sync.OnceValues(func() (string, error) {
	facts, err := system.read()
	if err != nil {
		return "", err
	}
	address, err := url.Parse(facts.GatewayURL)
	if err != nil {
		return "", fmt.Errorf("read the gateway's address: %w", err)
	}
	return address.Port(), nil
})

// contract is openapi.json, compiled once.
type contract struct {
	document  libopenapi.Document
	model     *v3.Document
	router    router.Router
	validator validator.Validator
	compiled  time.Duration

	mu        sync.Mutex
	checked   int
	took      time.Duration   // for all checks
	breaches  []string        // in the order of their discovery, without duplicates
	succeeded map[string]bool // by operation id
}

var servedContract = sync.OnceValues(func() (*contract, error) {
	facts, err := system.read()
	if err != nil {
		return nil, err
	}
	res, err := http.Get(facts.GatewayURL + "/openapi.json")
	if err != nil {
		return nil, fmt.Errorf("get the document: %w", err)
	}
	defer res.Body.Close()
	served, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("get the document: %s", res.Status), err)
	}
	return newContract(served)
})

// elsewhere stands for every path and method that is not in the document.
const elsewhere = "/elsewhere"

// elsewhereAnswers are the responses that the gateway may send there, by status.
var elsewhereAnswers = map[string]string{
	"400": "BadRequest", "401": "Unauthenticated", "404": "NotFound", "405": "MethodNotAllowed", "413": "TooLarge", "415": "UnsupportedMediaType",
	"429": "TooManyRequests", "500": "InternalError", "502": "BadGateway", "503": "Unavailable", "504": "GatewayTimeout",
}

// free are the parts of bodies that the document does not describe.
var free = []string{
	"$.body.data.preferences.**", "$.body.data[*].preferences.**", "$.body.preferences.**",
	"$.body.data.data.**", "$.body.data[*].data.**", "$.body.data.payload.**",
	"$.body.data.options.publicKey.**", "$.body.credential.**",
	"$.body.profile.preferences.**", "$.body.auth.**", "$.body.email.**", "$.body.audit.**", // of exports
	"$.body.openapi", "$.body.info", "$.body.servers", "$.body.tags", "$.body.security", "$.body.paths", "$.body.components",
}

// plainHeaders belong to HTTP or to browsers and are not documented for operations.
var plainHeaders = []string{
	"Content-Security-Policy", "Content-Encoding", "Referrer-Policy", "X-Content-Type-Options",
	"Cross-Origin-Resource-Policy", "Cross-Origin-Opener-Policy", "Permissions-Policy", "Strict-Transport-Security",
	"Connection", "Upgrade", "Sec-Websocket-Accept", "Sec-Websocket-Key", "Sec-Websocket-Version",
}

func newContract(served []byte) (*contract, error) {
	var document object
	if err := json.Unmarshal(served, &document); err != nil {
		return nil, fmt.Errorf("decode the document: %w", err)
	}
	paths, ok := document["paths"].(object)
	if !ok {
		return nil, errors.New("the document has no paths")
	}
	answers := object{}
	for status, name := range elsewhereAnswers {
		answers[status] = object{"$ref": "#/components/responses/" + name}
	}
	paths[elsewhere] = object{"get": object{"responses": answers}}
	extended, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("encode the document: %w", err)
	}
	c, started := &contract{succeeded: map[string]bool{}}, time.Now()
	if c.document, err = libopenapi.NewDocument(extended); err != nil {
		return nil, fmt.Errorf("read the document: %w", err)
	}
	model, err := c.document.BuildV3Model()
	if err != nil {
		return nil, fmt.Errorf("read the document: %w", err)
	}
	c.model, c.router = &model.Model, router.NewRouter(&model.Model)
	var problems []error
	c.validator, problems = validator.NewValidator(c.document,
		config.WithFormatAssertions(), config.WithStrictServerMatching(), config.WithStrictMode(), config.WithURLEncodedBodyValidation(),
		config.WithStrictIgnorePaths(free...), config.WithStrictIgnoredHeadersExtra(plainHeaders...))
	c.compiled = time.Since(started)
	return c, errors.Join(problems...)
}

// check returns an error if the request or the response differs from the document. The
// error says where they differ, but has no values, which may be secret.
func (c *contract) check(r *http.Request, sent []byte, res *http.Response, got []byte) error {
	started := time.Now()
	id, breaches := c.differences(r, sent, res, got)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checked++
	if res.StatusCode < http.StatusMultipleChoices {
		c.succeeded[id] = true
	}
	c.took += time.Since(started)
	if len(breaches) == 0 {
		return nil
	}
	breach := fmt.Sprintf("%s %s = %d %s: %s", r.Method, r.URL.Path, res.StatusCode, res.Header.Get("Content-Type"), strings.Join(breaches, "; "))
	if !slices.Contains(c.breaches, breach) {
		c.breaches = append(c.breaches, breach)
	}
	return errors.New("differs from openapi.json: " + breach)
}

// differences returns the id of the operation and its differences from the document.
func (c *contract) differences(r *http.Request, sent []byte, res *http.Response, got []byte) (id string, found []string) {
	asked, answered := as(r, r.Method, r.URL.Path, nil), *res
	answered.Body = io.NopCloser(bytes.NewReader(got))
	if r.Method == http.MethodHead {
		asked.Method, answered.Body = http.MethodGet, http.NoBody
	}
	route, err := c.router.FindRoute(asked)
	if err != nil || strings.Contains(r.URL.Path, "//") {
		asked = as(r, http.MethodGet, elsewhere, nil)
		if route, err = c.router.FindRoute(asked); err != nil {
			return "", []string{err.Error()}
		}
	}
	_, invalid := c.validator.ValidateHttpResponse(asked, &answered)
	if res.StatusCode < http.StatusMultipleChoices {
		_, more := c.validator.ValidateHttpRequestSync(as(r, asked.Method, r.URL.Path, sent))
		invalid = append(invalid, more...)
	}
	for _, fault := range invalid {
		// A response to HEAD has the headers of GET and never a body.
		if r.Method != http.MethodHead || !strings.Contains(fault.Message, "response object is missing") {
			found = append(found, describe(fault))
		}
	}
	described := route.Operation.Responses.Codes.GetOrZero(strconv.Itoa(res.StatusCode))
	if code := codeOf(got); code != "" && described != nil && !strings.Contains(described.Description, "`"+code+"`") {
		found = append(found, "the description of the answer does not name "+code)
	}
	return route.Operation.OperationId, found
}

// as returns a copy of r with another method, path and body.
func as(r *http.Request, method, path string, body []byte) *http.Request {
	c := r.Clone(r.Context())
	c.Method, c.URL.Path, c.Body = method, path, io.NopCloser(bytes.NewReader(body))
	return c
}

// describe returns the message of a validation error and the places of its causes.
func describe(fault *faults.ValidationError) string {
	var b strings.Builder
	b.WriteString(fault.Message)
	for _, inner := range fault.SchemaValidationErrors {
		fmt.Fprintf(&b, " (%s %s)", inner.FieldPath, inner.KeywordLocation)
	}
	return b.String()
}

// codeOf returns the code of an error.
func codeOf(body []byte) string {
	var failure struct {
		Code string `json:"code"`
	}
	if json.Unmarshal(body, &failure) != nil {
		return ""
	}
	return failure.Code
}

// contractKept prints the cost of the checks. It returns an error if a response of the
// whole run differed, because a test may have retried, or if no test of a complete run
// called an operation successfully.
func contractKept() error {
	c, err := servedContract()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Printf("openapi.json: compiled in %s, %d responses checked in %s\n", c.compiled.Round(time.Millisecond), c.checked, c.took.Round(time.Millisecond))
	wrong := slices.Clone(c.breaches)
	for path, item := range c.model.Paths.PathItems.FromOldest() {
		for method, op := range item.GetOperations().FromOldest() {
			if path != elsewhere && flag.Lookup("test.run").Value.String() == "" && !c.succeeded[op.OperationId] {
				wrong = append(wrong, "no test called successfully: "+method+" "+path)
			}
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("responses differ from openapi.json:\n%s", strings.Join(wrong, "\n"))
}
