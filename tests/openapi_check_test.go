package tests

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi-validator/config"
	"github.com/pb33f/libopenapi-validator/schema_validation"
	"github.com/pb33f/libopenapi/datamodel/high/base"
)

// TestOpenAPIValid: openapi.json is a valid OpenAPI 3.1 document.
func TestOpenAPIValid(t *testing.T) {
	t.Parallel()
	c, err := servedContract()
	if err != nil {
		t.Fatal(err)
	}
	if ok, found := c.validator.ValidateDocument(); !ok {
		for _, fault := range found {
			t.Error(fault)
		}
	}
}

// TestOpenAPIExamples: the examples match their schemas.
func TestOpenAPIExamples(t *testing.T) {
	t.Parallel()
	c, err := servedContract()
	if err != nil {
		t.Fatal(err)
	}
	checker, n := schema_validation.NewSchemaValidator(config.WithFormatAssertions(), config.WithStrictMode(), config.WithStrictIgnorePaths("$.body.data.**")), 0
	check := func(where string, schema *base.Schema, example interface{ Decode(any) error }) {
		t.Helper()
		n++
		var value any
		if err := example.Decode(&value); err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		if ok, found := checker.ValidateSchemaObject(schema, value); !ok {
			for _, fault := range found {
				t.Errorf("the example of %s: %v", where, fault)
			}
		}
	}
	for name, proxy := range c.model.Components.Schemas.FromOldest() {
		if schema := proxy.Schema(); schema.Example != nil {
			check(name, schema, schema.Example)
		}
	}
	for _, op := range operations(t) {
		if op.RequestBody == nil {
			continue
		}
		for _, content := range op.RequestBody.Content.FromOldest() {
			if content.Example != nil {
				check(op.OperationId, content.Schema.Schema(), content.Example)
			}
		}
	}
	if n < 10 {
		t.Errorf("%d examples, want at least 10", n)
	}
}

// TestOpenAPIDifferences: the check of the tests' HTTP client finds every kind of
// difference from the document.
func TestOpenAPIDifferences(t *testing.T) {
	t.Parallel()
	c, err := servedContract()
	if err != nil {
		t.Fatal(err)
	}
	const (
		ended           = "POST /api/v1/auth/logout-all"
		done            = `{"success":true,"data":{"revoked":1}}`
		unauthenticated = `{"success":false,"message":"No.","requestId":"1","code":"unauthenticated"}`
		absent          = `{"success":false,"message":"No.","requestId":"1","code":"not_found"}`
	)
	for name, tc := range map[string]struct {
		route, sent  string
		status       int
		answer, kind string
		header       []string
		want         string // a part of the report; empty if there is no difference
	}{
		"none":                {route: ended, status: 200, answer: done},
		"an error":            {route: ended, status: 401, answer: unauthenticated, header: []string{"WWW-Authenticate", "Bearer"}},
		"no route":            {route: "GET /api/v1/nothing", status: 404, answer: absent},
		"a member more":       {route: ended, status: 200, answer: `{"success":true,"data":{"revoked":1,"more":2}}`, want: "'more'"},
		"a member less":       {route: ended, status: 200, answer: `{"success":true,"data":{}}`, want: "required"},
		"a type":              {route: ended, status: 200, answer: `{"success":true,"data":{"revoked":"one"}}`, want: "$.data.revoked"},
		"no JSON":             {route: ended, status: 200, answer: `{"success"`, want: "failed to validate"},
		"a status":            {route: ended, status: 201, answer: done, want: "'201' does not exist"},
		"a content type":      {route: ended, status: 200, answer: done, kind: "text/plain", want: "'text/plain' does not exist"},
		"a header more":       {route: ended, status: 200, answer: done, header: []string{"X-Cache", "HIT"}, want: "'X-Cache' is not declared"},
		"a header less":       {route: ended, status: 401, answer: unauthenticated, want: "Missing required header"},
		"a header's value":    {route: "GET /api/v1/user/me", status: 304, header: []string{"ETag", "1"}, want: "'etag'"},
		"a code":              {route: ended, status: 401, answer: absent, header: []string{"WWW-Authenticate", "Bearer"}, want: "does not name not_found"},
		"a code of nothing":   {route: ended, status: 401, answer: strings.Replace(unauthenticated, "unauthenticated", "no_such", 1), header: []string{"WWW-Authenticate", "Bearer"}, want: "$.code"},
		"a route":             {route: "GET /api/v1/nothing", status: 200, answer: done, want: "'200' does not exist"},
		"a method":            {route: "PUT /api/v1/auth/logout-all", status: 200, answer: done, want: "'200' does not exist"},
		"a path":              {route: "GET /api/v1/auth/users/", status: 200, answer: done, want: "'id' is missing"},
		"a member of a body":  {route: "POST /api/v1/auth/forgot-password", sent: `{"email":"a@example.com","mail":""}`, status: 202, answer: `{"success":true,"data":{"status":"check_email"}}`, want: "additionalProperties"},
		"a parameter":         {route: "GET /api/v1/audit/me?limit=1000", status: 200, answer: `{"success":true,"data":[],"meta":{"limit":1,"hasMore":false}}`, want: "limit"},
		"a parameter unknown": {route: "GET /api/v1/audit/me?page=1", status: 200, answer: `{"success":true,"data":[],"meta":{"limit":1,"hasMore":false}}`, want: "'page'"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			method, path, _ := strings.Cut(tc.route, " ")
			r := httptest.NewRequest(method, path, http.NoBody)
			r.Header.Set("Authorization", "Bearer x")
			if tc.sent != "" {
				r.Header.Set("Content-Type", "application/json")
			}
			answer := &http.Response{StatusCode: tc.status, Header: http.Header{"X-Request-Id": {"1"}, "Content-Type": {"application/json; charset=utf-8"}}}
			if tc.kind != "" {
				answer.Header.Set("Content-Type", tc.kind)
			}
			for i := 0; i < len(tc.header); i += 2 {
				answer.Header.Set(tc.header[i], tc.header[i+1])
			}
			_, found := c.differences(r, []byte(tc.sent), answer, []byte(tc.answer))
			report := strings.Join(found, "; ")
			if tc.want == "" && report != "" || !strings.Contains(report, tc.want) {
				t.Errorf("differences = %q, want %q", report, tc.want)
			}
		})
	}
}
