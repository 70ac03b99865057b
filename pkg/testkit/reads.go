package testkit

import (
	"net/http"
	"regexp"
	"testing"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/web"
)

// Reads are the privileged reads of a service.
type Reads struct {
	URL     string // of the service
	Routes  []web.Route
	Bearer  string            // the access token of an administrator
	Objects map[string]string // the id in the path of each route that has one
	DB      *postgres.Pool    // with the outbox
	Events  []event.Payload   // that record a read besides event.AuditRead
}

var pathVariable = regexp.MustCompile(`\{[^/]*\}`)

// WantReadsRecorded sends a request to each privileged route and checks that it succeeds
// and leaves one record. A route with an id for which there is no object fails the test, so
// that none is forgotten.
func WantReadsRecorded(t testing.TB, reads Reads) {
	t.Helper()
	n := 0
	for _, route := range reads.Routes {
		if !route.Privileged() {
			continue
		}
		n++
		id, known := reads.Objects[route.Path]
		if pathVariable.MatchString(route.Path) && !known {
			t.Errorf("GET %s is privileged, and the test has no object for it", route.Path)
			continue
		}
		before := reads.recorded(t)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, reads.URL+pathVariable.ReplaceAllString(route.Path, id), http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+reads.Bearer)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := reads.recorded(t) - before; res.StatusCode != http.StatusOK || got != 1 {
			t.Errorf("GET %s = %d and left %d records, want 200 and 1", route.Path, res.StatusCode, got)
		}
	}
	if n == 0 {
		t.Error("no route is privileged")
	}
}

func (r Reads) recorded(t testing.TB) (n int) {
	t.Helper()
	names := []string{event.AuditRead{}.EventName()}
	for _, p := range r.Events {
		names = append(names, p.EventName())
	}
	if err := r.DB.QueryRow(t.Context(), `SELECT count(*) FROM outbox WHERE name = ANY($1) AND topic = $2`, names, string(event.Audit)).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
