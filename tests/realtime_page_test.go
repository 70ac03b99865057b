package tests

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/headgate/headgate/pkg/testkit"
)

// codeIn returns the first block of code in a language in a document.
func codeIn(t *testing.T, file, language string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "```"+language+"\n")
	code, _, ended := strings.Cut(rest, "```")
	if !found || !ended {
		t.Fatalf("%s has no code in %s", file, language)
	}
	return code
}

// observed makes a page remember its WebSockets and what they were closed with.
const observed = `
	window.got = []; window.sockets = []; window.codes = [];
	window.WebSocket = class extends WebSocket {
		constructor(url) { super(url); sockets.push(this); this.addEventListener("close", e => codes.push(e.code)); }
	};
`

// TestRealtimePage runs the code of docs/realtime.md in a browser: it is told of everything that
// happens to its account, continues after an interruption, and ends with its session. At
// first there is no token.
func TestRealtimePage(t *testing.T) {
	t.Parallel()
	c, shown, email := newClient(t), newClient(t), newEmail()
	c.signup(email)
	shown.login(email, goodPassword)
	b := startBrowser(t)
	do(b, page.SetBypassCSP, page.SetBypassCSPParams{Enabled: true}) // The page is not the application's.
	drive(b, chromedp.Navigate(c.gateway+"/docs"))
	drive(b, chromedp.Evaluate[bool](observed+codeIn(t, "docs/realtime.md", "js")+`
		window.token = "`+shown.tokens.AccessToken+`";
		let offline = true;
		const getToken = async () => { if (offline) { offline = false; throw new Error("offline"); } return token; };
		window.stop = listen(getToken, message => got.push(message)); true`))
	count := func(expression string) int {
		t.Helper()
		return drive(b, chromedp.Evaluate[int](expression))
	}
	wantMessage := func(kind, condition string) {
		t.Helper()
		testkit.Eventually(t, func() error {
			if n := count(fmt.Sprintf(`got.filter(({type, data}) => type === %q && (%s)).length`, kind, condition)); n != 1 {
				return fmt.Errorf("%d messages %s with %s: %s", n, kind, condition, drive(b, chromedp.Evaluate[string](`JSON.stringify(got)`)))
			}
			return nil
		})
	}
	wantMessage("connection.opened", "true")
	c.do(http.StatusOK, "PATCH /api/v1/user/me", object{"bio": "Counts."}, nil)
	wantMessage("user.updated", `data.fields.join() === "bio"`)
	other := newClient(t)
	other.login(email, goodPassword)
	wantMessage("session.created", `data.method === "password" && data.sessionId === "`+other.tokens.SessionID+`"`)
	other.do(http.StatusOK, "POST /api/v1/auth/logout", nil, nil)
	wantMessage("session.revoked", `data.reason === "logout" && data.sessionId === "`+other.tokens.SessionID+`"`)
	c.do(http.StatusAccepted, "POST /api/v1/auth/resend-verification", object{"email": email}, nil)
	testkit.Eventually(t, func() error {
		if count(`got.filter(m => m.type === "email.sent" && m.data.template).length`) == 0 {
			return errors.New("no email.sent")
		}
		return nil
	})

	// The network is away for a moment.
	drive(b, chromedp.Evaluate[bool](`sockets.at(-1).close(); true`))
	testkit.Eventually(t, func() error {
		if count(`codes.length`) != 1 {
			return errors.New("the connection is open")
		}
		return nil
	})
	c.do(http.StatusOK, "PATCH /api/v1/user/me", object{"timezone": "Europe/Zurich"}, nil)
	testkit.Eventually(t, func() error {
		if count(`got.filter(m => m.type === "connection.opened").length`) != 2 {
			return errors.New("not connected again")
		}
		return nil
	})
	wantMessage("user.updated", `data.fields.join() === "timezone"`)
	if count(`got.filter(m => m.type === "resume.failed").length`) != 0 {
		t.Error("the browser could not continue")
	}
	if count(`new Set(got.filter(m => !m.type.startsWith("connection.")).map(m => m.id)).size - got.filter(m => !m.type.startsWith("connection.")).length`) != 0 {
		t.Error("a message was repeated")
	}

	// The session ends, and getToken has nothing.
	drive(b, chromedp.Evaluate[bool](`token = null; true`))
	c.do(http.StatusOK, "DELETE /api/v1/auth/sessions/"+shown.tokens.SessionID, nil, nil)
	testkit.Eventually(t, func() error {
		if code := count(`codes[1] ?? 0`); code != 4401 {
			return fmt.Errorf("closed with %d, want 4401", code)
		}
		return nil
	})
	if n := count(`sockets.length`); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

// listen opens the event stream of the caller, with further parameters, and returns a function
// that waits for an event of a type.
func (c *client) listen(query string) (want func(kind string) json.RawMessage) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.gateway+"/api/v1/realtime/events"+query, http.NoBody)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.tokens.AccessToken)
	res, err := httpClient.Do(req)
	if err != nil || res.StatusCode != http.StatusOK {
		c.t.Fatalf("events: %v, %v", res, err)
	}
	c.t.Cleanup(func() { res.Body.Close() })
	lines := bufio.NewScanner(res.Body)
	return func(kind string) json.RawMessage {
		c.t.Helper()
		found := false
		for lines.Scan() {
			switch name, value, _ := strings.Cut(lines.Text(), ": "); {
			case name == "event":
				found = value == kind
			case name == "data" && found:
				var m struct{ Data json.RawMessage }
				if err := json.Unmarshal([]byte(value), &m); err != nil {
					c.t.Fatal(err)
				}
				return m.Data
			}
		}
		c.t.Fatalf("the stream ended without %s: %v", kind, lines.Err())
		return nil
	}
}

// TestRealtimeTour: an administrator is told that the audit log grows and how far the streams are
// behind. A ticket opens a WebSocket.
func TestRealtimeTour(t *testing.T) {
	t.Parallel()
	admin := newAdmin(t)
	want := admin.listen("?channels=audit,streams")
	want("connection.opened")
	newClient(t).signup(newEmail())
	if data := want("audit.appended"); !strings.Contains(string(data), `"count":`) {
		t.Errorf("audit.appended %s", data)
	}
	if data := want("stream.lag"); !strings.Contains(string(data), `"stream":"user-events","group":"user-service"`) {
		t.Errorf("stream.lag %s", data)
	}

	var issued struct{ Ticket string }
	admin.do(http.StatusCreated, "POST /api/v1/realtime/ticket", nil, &issued)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, admin.gateway+"/api/v1/realtime/ws?ticket="+issued.Ticket, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="} {
		req.Header.Set(name, value)
	}
	res, err := httpClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("WebSocket = %s", res.Status)
	}
}
