package tests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/testkit"
)

// client calls the API through the gateway.
type client struct {
	t       *testing.T
	gateway string
	tokens  tokens
}

type tokens struct {
	AccessToken  string `json:"accessToken"`
	RefreshToken string `json:"refreshToken"`
	SessionID    string `json:"sessionId"`
}

type user struct {
	ID            string `json:"id"`
	Email         string `json:"email"`
	EmailVerified bool   `json:"emailVerified"`
	Role          string `json:"role"`
}

type answer struct {
	status    int
	header    http.Header
	Success   bool            `json:"success"`
	Data      json.RawMessage `json:"data"`
	Code      string          `json:"code"`
	Message   string          `json:"message"`
	RequestID string          `json:"requestId"`
	Meta      struct {
		NextCursor string `json:"nextCursor"`
		HasMore    bool   `json:"hasMore"`
	} `json:"meta"`
}

const goodPassword = "correct horse battery staple"

func newClient(t *testing.T) *client {
	t.Helper()
	return &client{t: t, gateway: facts(t).GatewayURL}
}

// newEmail returns an unused address.
func newEmail() string { return "user-" + uuid.NewString() + "@example.com" }

type object = map[string]any

// try sends a request and decodes the envelope. Its errors are those of the transport.
func (c *client) try(method, path string, body any, header ...string) (answer, error) {
	var content bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&content).Encode(body); err != nil {
			return answer{}, err
		}
	}
	remember(content.Bytes())
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.gateway+path, &content)
	if err != nil {
		return answer{}, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.tokens.AccessToken != "" {
		req.Header.Set("Authorization", "Bearer "+c.tokens.AccessToken)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := httpClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	data, err := readAll(c.t.Context(), res.Body)
	if err != nil {
		return answer{}, err
	}
	remember(data)
	a := answer{status: res.StatusCode, header: res.Header}
	if err := json.Unmarshal(data, &a); err != nil {
		return a, fmt.Errorf("%s %s: %d %w in %s", method, path, res.StatusCode, err, data)
	}
	return a, nil
}

// do is try for requests whose status is known. The route is a method and a path. It fails
// the test on another status, and decodes the data into out unless that is nil. Like a good
// client, it waits as long as Retry-After says when too many people are signing in: tests run
// beside one another.
func (c *client) do(status int, route string, body, out any, header ...string) answer {
	c.t.Helper()
	method, path, _ := strings.Cut(route, " ")
	var a answer
	testkit.Eventually(c.t, func() (err error) {
		if a, err = c.try(method, path, body, header...); err != nil {
			c.t.Fatal(err)
		}
		if a.Code == "busy" && status != a.status {
			seconds, _ := strconv.Atoi(a.header.Get("Retry-After"))
			<-time.After(time.Duration(seconds) * time.Second)
			return fmt.Errorf("%s = %d %s (%s), want %d", route, a.status, a.Code, a.Message, status)
		}
		return nil
	})
	if a.status != status {
		c.t.Fatalf("%s = %d %s (%s), want %d", route, a.status, a.Code, a.Message, status)
	}
	if out != nil {
		if err := json.Unmarshal(a.Data, out); err != nil {
			c.t.Fatalf("%s: %v in %s", route, err, a.Data)
		}
	}
	return a
}

type signedIn struct {
	User   user   `json:"user"`
	Tokens tokens `json:"tokens"`
}

func (c *client) signup(email string) user {
	c.t.Helper()
	var in signedIn
	c.do(http.StatusCreated, "POST /api/v1/auth/signup", object{"email": email, "password": goodPassword, "name": "Ada"}, &in)
	c.tokens = in.Tokens
	return in.User
}

func (c *client) login(email, password string) user {
	c.t.Helper()
	var in signedIn
	c.do(http.StatusOK, "POST /api/v1/auth/login", object{"email": email, "password": password}, &in)
	c.tokens = in.Tokens
	return in.User
}

// shared keeps the administrator's session, because logins are rate limited.
var shared = make(chan tokens, 1)

func newAdmin(t *testing.T) *client {
	t.Helper()
	c := newClient(t)
	select {
	case c.tokens = <-shared:
	default:
		admin := facts(t).Admin
		c.login(admin.Email, admin.Password)
	}
	select {
	case shared <- c.tokens:
	default: // Another test has signed in meanwhile.
	}
	return c
}

// auditEvent is a record of the audit log, with the fields that tests use.
type auditEvent struct {
	ID        string `json:"id"`
	Type      string `json:"type"`
	SubjectID string `json:"subjectId"`
	Outcome   string `json:"outcome"`
	RequestID string `json:"requestId"`
	IP        string `json:"ip"`
	Actor     struct {
		Type string `json:"type"`
		ID   string `json:"id"`
	} `json:"actor"`
}

// audit returns all records of a subject, page by page.
func (c *client) audit(subject string) ([]auditEvent, error) {
	var all []auditEvent
	for cursor := ""; ; {
		query := url.Values{"subjectId": {subject}, "limit": {"3"}}
		if cursor != "" {
			query.Set("cursor", cursor)
		}
		a, err := c.try("GET", "/api/v1/audit/events?"+query.Encode(), nil)
		if err != nil {
			return nil, err
		}
		if a.status != http.StatusOK {
			return nil, fmt.Errorf("audit: %d %s", a.status, a.Code)
		}
		var page []auditEvent
		if err := json.Unmarshal(a.Data, &page); err != nil {
			return nil, err
		}
		all = append(all, page...)
		if !a.Meta.HasMore {
			return all, nil
		}
		cursor = a.Meta.NextCursor
	}
}

// mail is a message in the mailbox.
type mail struct {
	ID        string    `json:"ID"`
	MessageID string    `json:"MessageID"`
	Subject   string    `json:"Subject"`
	Created   time.Time `json:"Created"`
	To        []struct {
		Address string `json:"Address"`
	} `json:"To"`
	Text string `json:"Text"`
	HTML string `json:"HTML"`
}

func getJSON(t *testing.T, address string, out any) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	if err != nil {
		return err
	}
	res, err := httpClient.Do(req)
	if err != nil {
		return err
	}
	data, err := readAll(t.Context(), res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", address, res.Status)
	}
	return json.Unmarshal(data, out)
}

// inbox returns the mails that have arrived for an address.
func inbox(t *testing.T, email string) ([]mail, error) {
	t.Helper()
	var list struct {
		Messages []mail `json:"messages"`
	}
	if err := getJSON(t, facts(t).MailboxURL+"/api/v1/messages?limit=1000", &list); err != nil {
		return nil, err
	}
	var found []mail
	for _, m := range list.Messages {
		if len(m.To) == 1 && strings.EqualFold(m.To[0].Address, email) {
			found = append(found, m)
		}
	}
	return found, nil
}

// awaitLink waits for the verification mail and returns the link in its text.
func awaitLink(t *testing.T, email string) string {
	t.Helper()
	return awaitLinkTo(t, email, "auth/verify-email")
}

// awaitLinkTo waits for a mail with a link to a path below /api/v1 and returns the link in its
// text.
func awaitLinkTo(t *testing.T, email, page string) string {
	t.Helper()
	target := regexp.MustCompile(`https?://\S+/api/v1/` + page + `\?token=[A-Za-z0-9_%-]+`)
	var found string
	testkit.Eventually(t, func() error {
		mails, err := inbox(t, email)
		if err != nil {
			return err
		}
		for _, m := range mails {
			var full mail
			if err := getJSON(t, facts(t).MailboxURL+"/api/v1/message/"+m.ID, &full); err != nil {
				return err
			}
			if found = target.FindString(full.Text); found == "" {
				continue
			}
			if !strings.Contains(full.HTML, page+"?token=") {
				t.Fatalf("the mail has a link in its text but none in its HTML:\n%s", full.HTML)
			}
			return nil
		}
		return fmt.Errorf("no mail to %s with a link to %s", email, page)
	})
	return found
}
