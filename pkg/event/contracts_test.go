package event_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/pkg/event"
)

var update = flag.Bool("update", false, "add new contracts and golden samples")

const contractsFile = "contracts.txt"

// TestContracts keeps what is on the wire: a line of contracts.txt may be
// added, never changed or removed, and a field added to a published version
// must be optional.
func TestContracts(t *testing.T) {
	t.Parallel()
	var lines []string
	for _, p := range event.Contracts() {
		lines = append(lines, contract(t, p)...)
	}
	kept := readLines(t, contractsFile)
	versions := map[string]bool{}
	for _, line := range kept {
		if !slices.Contains(lines, line) {
			t.Errorf("%q is promised in %s and gone from the code: make a new version instead", line, contractsFile)
		}
		versions[strings.Fields(line)[0]] = true
	}
	for _, line := range lines {
		if slices.Contains(kept, line) {
			continue
		}
		if versions[strings.Fields(line)[0]] && !strings.HasSuffix(line, " optional") && !strings.Contains(line, " @") {
			t.Errorf("%q adds a required field to a published version: make it optional or make a new version", line)
		} else if !*update {
			t.Errorf("%q is not in %s: run go test ./event -update", line, contractsFile)
		}
	}
	if *update && !t.Failed() {
		if err := os.WriteFile(contractsFile, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// contract describes a payload, one line for each stream and field.
func contract(t *testing.T, p event.Payload) []string {
	t.Helper()
	var lines []string
	for _, topic := range p.EventTopics() {
		lines = append(lines, fmt.Sprintf("%s @%s", p.EventName(), topic))
	}
	for field := range reflect.TypeOf(p).Fields() {
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		kind := field.Type
		if kind.Kind() == reflect.Slice {
			kind = kind.Elem()
		}
		if kind.Kind() == reflect.Struct && kind != reflect.TypeFor[time.Time]() || name == "" {
			t.Errorf("%s: field %s: want a flat field with a JSON name", p.EventName(), field.Name)
		}
		line := fmt.Sprintf("%s %s %s", p.EventName(), name, field.Type)
		if optional(options) {
			line += " optional"
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

// optional reports whether encoding/json leaves out a field with these options if it is empty.
func optional(options string) bool { return options == "omitempty" || options == "omitzero" }

// TestGoldenSamples decodes a stored event of each contract, as a consumer that
// was built today must for ever.
func TestGoldenSamples(t *testing.T) {
	t.Parallel()
	for _, p := range event.Contracts() {
		t.Run(p.EventName(), func(t *testing.T) {
			t.Parallel()
			file := filepath.Join("testdata", p.EventName()+".json")
			if _, err := os.Stat(file); os.IsNotExist(err) && *update {
				writeSample(t, file, p)
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatalf("%v: run go test ./event -update", err)
			}
			e, err := event.Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			got := reflect.New(reflect.TypeOf(p))
			if err := json.Unmarshal(e.Data, got.Interface()); err != nil {
				t.Fatal(err)
			}
			if e.Name != p.EventName() {
				t.Errorf("name = %s, want %s", e.Name, p.EventName())
			}
			if diff := cmp.Diff(without(t, filled(p), e.Data), got.Elem().Interface()); diff != "" {
				t.Errorf("body differs (-want +got):\n%s", diff)
			}
		})
	}
}

// without returns p with optional fields empty that a sample of before does not
// have.
func without(t *testing.T, p any, sample json.RawMessage) any {
	t.Helper()
	var members map[string]any
	if err := json.Unmarshal(sample, &members); err != nil {
		t.Fatal(err)
	}
	body := reflect.New(reflect.TypeOf(p)).Elem()
	body.Set(reflect.ValueOf(p))
	for field := range body.Type().Fields() {
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if _, there := members[name]; !there && optional(options) {
			body.FieldByIndex(field.Index).SetZero()
		}
	}
	return body.Interface()
}

func writeSample(t *testing.T, file string, p event.Payload) {
	t.Helper()
	e := event.New(event.WithOrigin(t.Context(), event.Origin{
		Actor: event.Actor{Type: "user", ID: sampleID}, IP: "192.0.2.7", UserAgent: "curl/8.0",
		RequestID: "req-12345678", CorrelationID: "req-12345678",
		TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}), sampleTime, sampleID, filled(p).(event.Payload))
	e.ID, e.Producer = "01926f3a-7c2e-7b3a-9d55-0f5e6a1b2c3d", "auth-service"
	data, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(data, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

const sampleID = "01926f39-0000-7000-8000-000000000001"

var sampleTime = time.Date(2026, 11, 1, 12, 30, 15, 123456000, time.UTC)

// filled returns a payload like p with every field set.
func filled(p event.Payload) any {
	v := reflect.New(reflect.TypeOf(p)).Elem()
	for field, value := range v.Fields() {
		switch value.Interface().(type) {
		case time.Time:
			value.Set(reflect.ValueOf(sampleTime))
		case []string:
			value.Set(reflect.ValueOf([]string{"bio", "name"}))
		default:
			switch value.Kind() { //nolint:exhaustive // The contract test refuses other kinds' structs.
			case reflect.String:
				value.SetString("sample " + field.Name)
			case reflect.Int, reflect.Int64:
				value.SetInt(3)
			case reflect.Bool:
				value.SetBool(true)
			}
		}
	}
	return v.Interface()
}

func readLines(t *testing.T, file string) []string {
	t.Helper()
	data, err := os.ReadFile(file)
	if os.IsNotExist(err) && *update {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		lines = append(lines, s.Text())
	}
	return lines
}
