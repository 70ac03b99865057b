package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// object is the body of a request or a response.
type object = map[string]any

var httpClient = &http.Client{Timeout: 30 * time.Second}

// call sends a request to the gateway and returns the data of the response, unless it is a list.
// The status must be want.
func (s *system) call(ctx context.Context, want int, request, token string, body object) (object, error) {
	method, path, _ := strings.Cut(request, " ")
	content := io.Reader(http.NoBody)
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.gateway+path, content)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := httpClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != want {
		return nil, fmt.Errorf("%s = %d %s, want %d", request, res.StatusCode, text, want)
	}
	var answer struct{ Data any }
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, err
	}
	data, _ := answer.Data.(object) // not of a list
	return data, nil
}

// login returns an access token.
func (s *system) login(ctx context.Context, email, password string) (string, error) {
	data, err := s.call(ctx, http.StatusOK, "POST /api/v1/auth/login", "", object{"email": email, "password": password})
	if err != nil {
		return "", err
	}
	tokens, _ := data["tokens"].(object)
	token, _ := tokens["accessToken"].(string)
	if token == "" {
		return "", fmt.Errorf("login returned no access token: %v", data)
	}
	return token, nil
}

var link = regexp.MustCompile(`https?://\S+token=\S+`)

// awaitLink returns the link in the newest mail of the test mailbox.
func (s *system) awaitLink(ctx context.Context) (string, error) {
	found := ""
	err := eventually(ctx, time.Minute, func() error {
		var list struct{ Messages []struct{ ID string } }
		if err := getJSON(ctx, s.mailbox+"/api/v1/messages", &list); err != nil {
			return err
		}
		if len(list.Messages) == 0 {
			return errors.New("no mail")
		}
		var mail struct{ Text string }
		if err := getJSON(ctx, s.mailbox+"/api/v1/message/"+list.Messages[0].ID, &mail); err != nil {
			return err
		}
		if found = link.FindString(mail.Text); found == "" {
			return errors.New("no link in the mail")
		}
		return nil
	})
	return found, err
}

func getJSON(ctx context.Context, url string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	res, err := httpClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s = %s", url, res.Status)
	}
	return json.NewDecoder(res.Body).Decode(out)
}

func eventually(ctx context.Context, limit time.Duration, condition func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := condition()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// during reads and changes a profile again and again while change runs, and returns how many
// requests there were, how many failed, and how long the slowest took.
func (s *system) during(ctx context.Context, change func() error) (*load, error) {
	l := &load{}
	var group sync.WaitGroup
	end := make(chan struct{})
	for worker := range 4 {
		group.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-end:
					return
				case <-time.After(100 * time.Millisecond):
				}
				began := time.Now()
				var err error
				if worker%2 == 0 {
					_, err = s.call(ctx, http.StatusOK, "GET /api/v1/user/me", s.token, nil)
				} else {
					_, err = s.call(ctx, http.StatusOK, "PATCH /api/v1/user/me", s.token, object{"bio": fmt.Sprint(worker, n)})
				}
				l.count(time.Since(began), err)
			}
		})
	}
	err := change()
	select { // What comes after the change counts, too.
	case <-ctx.Done():
	case <-time.After(2 * time.Second):
	}
	close(end)
	group.Wait()
	return l, err
}

type load struct {
	requests, failed atomic.Int64
	mu               sync.Mutex
	slowest          time.Duration
	errs             []error
}

func (l *load) count(took time.Duration, err error) {
	l.requests.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slowest = max(l.slowest, took)
	if err != nil {
		l.failed.Add(1)
		l.errs = append(l.errs, err)
	}
}
