package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestParseRecord(t *testing.T) {
	t.Parallel()
	in, err := parseRecord([]byte(`{"email":"ann@example.com","name":"Ann","passwordHash":"x","createdAt":"2020-02-03T04:05:06Z"}`))
	if err != nil || in.Email != "ann@example.com" || in.PasswordHash != "x" || in.CreatedAt.Year() != 2020 {
		t.Errorf("parseRecord = %+v, %v", in, err)
	}
	for name, line := range map[string]string{
		"no JSON":        `ann@example.com`,
		"no object":      `[]`,
		"unknown member": `{"email":"ann@example.com","name":"Ann","password_hash":"x"}`,
		"wrong case":     `{"Email":"ann@example.com"}`,
		"twice":          `{"email":"ann@example.com","email":"eve@example.com"}`,
		"more behind":    `{"email":"ann@example.com"} {}`,
	} {
		if in, err := parseRecord([]byte(line)); err == nil {
			t.Errorf("%s: parseRecord = %+v", name, in)
		}
	}
}

// The reason for a refused line names the field and what it must be, in the words of the file.
func TestRefusedLinesSayWhatWasExpected(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		`{"email":1}`:                          "email: Must be a string.",
		`{"email":"a@b.c","name":{}}`:          "name: Must be a string.",
		`{"emailVerified":"yes"}`:              "emailVerified: Must be true or false.",
		`{"createdAt":"yesterday"}`:            "createdAt: Invalid timestamp: use RFC 3339, for example 2026-01-31T12:00:00Z.",
		`{"createdAt":"0001-01-01T00:00:00Z"}`: "createdAt: Year 1 is not the time of an account: leave the field out if the time is unknown.",
		`{"createdAt":1580702706}`:             "createdAt: Invalid timestamp: use RFC 3339, for example 2026-01-31T12:00:00Z.",
		`{"password_hash":"x"}`:                "password_hash: Unknown field.",
		`{"role":"user","role":"god"}`:         "role: Duplicate field.",
		`["ann@example.com"]`:                  "a line must be one JSON object",
		`{"email":"ann@example.com"`:           "invalid JSON at byte 26",
		`{"email":"a@b.c"} {}`:                 "invalid JSON at byte 18",
		"{\"name\":\"\xff\"}":                  "invalid JSON at byte 9",
	} {
		_, err := parseRecord([]byte(line))
		if got := fmt.Sprint(err); !strings.HasSuffix(got, want) || strings.Contains(got, "Go ") || strings.Contains(got, "main.") {
			t.Errorf("parseRecord(%s) = %q, want %q", line, got, want)
		}
	}
}

// The address of a line is known if it comes before a fault, and never guessed.
func TestAddressIn(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		`{"email":"a@b.c","name":"Ann`:                             "a@b.c",
		`{"a":{"email":"x@y.z"},"email":"a@b.c",,}`:                "a@b.c",
		`{"Email":"a@b.c"}`:                                        "a@b.c",
		"{\"name\":\"\xff\",\"email\":\"a@b.c\"}":                  "a@b.c",
		`{"email":1,"name":"Ann"}`:                                 "",
		`{"name":"Ann" "email":"a@b.c"}`:                           "",
		`{"email":"a@b.`:                                           "",
		`["email","a@b.c"]`:                                        "",
		`{"name":"the \"email\":\"x@y.z\"","a":{"email":"x@y.z"}}`: "",
	} {
		if got := addressIn([]byte(line)); got != want {
			t.Errorf("addressIn(%s) = %q, want %q", line, got, want)
		}
	}
}

// Only a line that is too long is lost, not the next one.
func TestNextLine(t *testing.T) {
	t.Parallel()
	in := bufio.NewReaderSize(strings.NewReader("one\n"+"long"+strings.Repeat("x", 200)+"\ntwo\n"+"long"+strings.Repeat("y", 200)), 16)
	var got []string
	for range 10 {
		line, err := nextLine(in)
		if errors.Is(err, errLongLine) {
			line = line[:4] // It is the beginning.
		}
		got = append(got, strings.TrimSpace(string(line)))
		if errors.Is(err, io.EOF) {
			break
		}
	}
	if text := strings.Join(got, ","); text != "one,long,two,long," {
		t.Errorf("lines = %s", text)
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(`{"email":"ann@example.com","name":"Ann","passwordHash":"$2a$06$x","createdAt":"2020-02-03T04:05:06Z"}`))
	f.Add([]byte(`{"email":1}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if in, err := parseRecord(line); err != nil && in.Email != "" {
			t.Errorf("parseRecord(%q) = %+v, %v", line, in, err)
		}
	})
}
