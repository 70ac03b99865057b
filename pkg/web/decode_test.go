package web_test

import (
	"bytes"
	jsonv1 "encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
)

// everything has each kind of member in which a body can nest.
type everything struct {
	input

	Any  any            `json:"any"`
	Raw  jsontext.Value `json:"raw"`
	List []everything   `json:"list"`
}

// decodeInTwoPasses does what Decode promises in the obvious way: first the whole syntax,
// then the fields.
func decodeInTwoPasses(body []byte) (everything, error) {
	var in everything
	if err := checkAllTokens(body); err != nil {
		return everything{}, err
	}
	err := json.Unmarshal(body, &in, json.RejectUnknownMembers(true), json.WithUnmarshalers(withoutNull))
	if err == nil {
		return in, nil
	}
	semantic, ok := errors.AsType[*json.SemanticError](err)
	if !ok || semantic.JSONPointer == "" {
		return everything{}, problem.ErrMalformedBody
	}
	field := strings.Join(slices.Collect(semantic.JSONPointer.Tokens()), ".")
	code := "invalid_type"
	if errors.Is(err, json.ErrUnknownName) {
		code = "unknown_field"
	}
	return everything{}, problem.Validation(problem.Field{Field: field, Code: code})
}

// withoutNull lists the types of everything that refuse null.
var withoutNull = json.JoinUnmarshalers(noNull[string](), noNull[int](), noNull[map[string]any](), noNull[[]everything](), noNull[everything]())

func noNull[T any]() *json.Unmarshalers {
	return json.UnmarshalFromFunc(func(d *jsontext.Decoder, _ *T) error {
		if d.PeekKind() == 'n' {
			return errors.New("null")
		}
		return errors.ErrUnsupported
	})
}

func checkAllTokens(body []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(body))
	rest := bytes.Trim(body, " \t\r\n")
	if len(rest) == 0 || bytes.HasPrefix(body, []byte("\ufeff")) || !utf8.Valid(body) || d.PeekKind() != '{' {
		return problem.ErrMalformedBody
	}
	for {
		_, err := d.ReadToken()
		duplicate, ok := errors.AsType[*jsontext.SyntacticError](err)
		switch {
		case ok && errors.Is(err, jsontext.ErrDuplicateName):
			p := *problem.ErrMalformedBody
			p.Fields = []problem.Field{{Field: strings.Join(slices.Collect(duplicate.JSONPointer.Tokens()), "."), Code: "duplicate_field"}}
			return &p
		case err != nil, d.StackDepth() > 32:
			return problem.ErrMalformedBody
		case d.StackDepth() == 0 && len(bytes.Trim(body[d.InputOffset():], " \t\r\n")) > 0:
			return problem.ErrMalformedBody
		case d.StackDepth() == 0:
			return nil
		}
	}
}

// outcome is what a client learns: code and fields, without their messages.
func outcome(value everything, err error) string {
	if err == nil {
		return fmt.Sprintf("%+v", value)
	}
	p := problem.From(err)
	fields := make([]problem.Field, 0, len(p.Fields))
	for _, field := range p.Fields {
		fields = append(fields, problem.Field{Field: field.Field, Code: field.Code})
	}
	return fmt.Sprint(p.Code, fields)
}

func nested(member, open, closing string, levels int) string {
	return `{"` + member + `":` + strings.Repeat(open, levels) + `1` + strings.Repeat(closing, levels) + `}`
}

// bodies have every kind of error, alone and together with others.
func bodies() []string {
	all := []string{
		``, ` `, "\r\n", `{}`, " {}\n", `null`, `[]`, `1`, `"x"`, `true`, "\ufeff{}", "\xff", "{\"email\":\"\xff\"}", "{}\xff", "{\xff}",
		`{"email":"a"}`, `{"Email":"a"}`, `{"email":null}`, `{"age":"1"}`, `{"age":1.5}`, `{"age":1e400}`, `{"email":"a","email":"b"}`,
		`{"age":null}`, `{"more":null}`, `{"list":null}`, `{"list":[null]}`, `{"more":{"a":null},"any":null,"raw":null}`, `{"email":null,"age":"1"}`, `{"unknown":null,"age":null}`,
		`{"email":null,"unknown":1`, `{"unknown":1}`, `{"unknown":1`, `{"unknown":1}x`, `{"unknown":1} {}`, `{"unknown":{"a":1,"a":2}}`, `{"unknown":1,"age":"1"}`, `{"age":"1","unknown":1}`,
		`{"unknown":` + strings.Repeat("[", 40), `{"age":"1","email":"a","email":"b"}`, `{"age":"1"`, `{"age":"1",}`, `{"age":"1"}]`, "{\"age\":\"1\",\"email\":\"\xff\"}",
		`{"raw":{"a":1,"a":2}}`, `{"any":{"a":1,"a":2}}`, `{"more":{"a":1,"a":2}}`, `{"raw":[1,]}`, `{"raw":"\ud800"}`, `{"any":"\ud800"}`, `{"email":"\ud800"}`,
		`{"list":[{"age":1},{"age":"2"}]}`, `{"list":[{"unknown":1}]}`, `{"list":[` + strings.Repeat(`{},`, 40) + `{}]}`, `{"any":[` + strings.Repeat(`[],`, 40) + `[]]}`,
		`{"list":[` + strings.Repeat(`{},`, 40) + `{"unknown":1}]}`, `{"any":"` + strings.Repeat("{", 50) + `"}`, `{"raw":"` + strings.Repeat("[", 50) + `"}`,
		`{"email":1,"any":` + strings.Repeat("[", 33) + strings.Repeat("]", 33) + `}`, `{"a":`, `{1:2}`, `{"email":hunter}`, `{"email":"\uhunt"}`, `{,}`, `{"email" "a"}`, `{} // x`,
	}
	for _, member := range []string{"any", "raw", "more", "list", "unknown", "email"} {
		for _, levels := range []int{30, 31, 32, 33, 40, 10_001} {
			all = append(all, nested(member, `[`, `]`, levels), nested(member, `{"a":`, `}`, levels), nested(member, `[`, ``, levels))
		}
	}
	return all
}

// TestDecodeInOnePass: Decode returns the same values and errors as two passes.
func TestDecodeInOnePass(t *testing.T) {
	t.Parallel()
	for _, body := range bodies() {
		compareDecoders(t, []byte(body))
	}
}

func compareDecoders(t *testing.T, body []byte) {
	t.Helper()
	if bytes.Contains(body, []byte(`\u0000`)) { // see TestNUL
		return
	}
	got, gotErr := web.Decode[everything](body)
	want, wantErr := decodeInTwoPasses(body)
	if got, want := outcome(got, gotErr), outcome(want, wantErr); got != want {
		t.Errorf("Decode(%.80q) = %s, want %s", body, got, want)
	}
	if _, err := web.CheckBody(body, "email"); (err == nil) != (checkAllTokens(body) == nil) {
		t.Errorf("CheckBody(%.80q) = %v, but Decode = %v", body, err, gotErr)
	}
}

// TestNUL: the NUL character is named with the path of its field, in values and names.
func TestNUL(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"email":"a\u0000"}`:                       "email",
		`{"any":{"theme":{"a":"\u0000"}}}`:          "any.theme.a",
		`{"raw":[1,{"b":["x","\u0000"]}]}`:          "raw.1.b.1",
		`{"any":{"a\u0000b":1}}`:                    `any.a\u0000b`,
		`{"email":"a\\u0000"}`:                      "",
		`{"email":"\\\u0000"}`:                      "email",
		`{"any":"\u00000","raw":"\u0000"}`:          "any",
		`{"list":[{"email":"a"},{"raw":"\u0000"}]}`: "list.1.raw",
	} {
		got := ""
		if _, err := web.Decode[everything]([]byte(body)); err != nil {
			p := problem.From(err)
			if len(p.Fields) != 1 || p.Fields[0].Code != "nul_character" || !strings.Contains(p.Fields[0].Message, "U+0000") {
				t.Errorf("Decode(%s) = %v", body, err)
				continue
			}
			got = p.Fields[0].Field
		}
		if got != want {
			t.Errorf("Decode(%s) names %q, want %q", body, got, want)
		}
	}
}

// TestNull: null is refused wherever it would leave a field empty, and named. Raw JSON and
// values of any type keep it, because their owner decides what it means.
func TestNull(t *testing.T) {
	t.Parallel()
	type request struct {
		Text    string         `json:"text"`
		Pointer *string        `json:"pointer"`
		Time    time.Time      `json:"time"`
		Texts   []string       `json:"texts"`
		Map     map[string]any `json:"map"`
		Any     any            `json:"any"`
		Raw     jsontext.Value `json:"raw"`
		Old     jsonv1.RawMessage
	}
	for body, want := range map[string]string{
		`{"text":null}`: "text", `{"pointer":null}`: "pointer", `{"time":null}`: "time", `{"texts":null}`: "texts", `{"texts":["a",null]}`: "texts.1",
		`{"map":null}`: "map", `{"text":"null"}`: "", `{"any":null}`: "", `{"raw":null}`: "", `{"Old":null}`: "", `{"map":{"a":[null]}}`: "",
		`{"any":{"a":null},"raw":{"a":null},"Old":[null]}`: "", `{"any":null,"text":null}`: "text",
	} {
		_, err := web.Decode[request]([]byte(body))
		if want == "" {
			if err != nil {
				t.Errorf("Decode(%s) = %v", body, err)
			}
			continue
		}
		field := problem.Field{Field: want, Code: "invalid_type", Message: "This field cannot be null: leave it out, or give it a value."}
		if p := problem.From(err); p.Code != "validation_failed" || !slices.Equal(p.Fields, []problem.Field{field}) {
			t.Errorf("Decode(%s) = %v %v, want %v", body, p, p.Fields, field)
		}
	}
}

// TestSyntaxErrorsAreNamed: what cannot be parsed is never called "not an object", and the
// message says what is wrong and where.
func TestSyntaxErrorsAreNamed(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		``: "it is empty", "\ufeff{}": "byte order mark", "{\"email\":\"\xff\"}": "invalid UTF-8",
		`hello`: "invalid JSON at byte 0", `'a'`: "invalid JSON at byte 0", `[1,`: "ends too early", `{"email":`: "ends too early",
		`{"email":hunter2}`: "invalid JSON at byte 9", `{"email":"a",}`: "invalid JSON", `{"a":1}{`: "data after the JSON value, from byte 7", `nul`: "ends too early",
		`[]`: "it must be a JSON object", `null`: "it must be a JSON object", `"x"`: "it must be a JSON object", `[1] x`: "data after",
		`{"email":"a","email":"b"}`: "duplicate field",
	} {
		_, err := web.Decode[everything]([]byte(body))
		if message := problem.From(err).Message; !strings.Contains(message, want) || strings.Contains(message, "hunter") {
			t.Errorf("Decode(%q) = %q, want %q", body, message, want)
		}
	}
}

func FuzzDecodeInOnePass(f *testing.F) {
	for _, body := range bodies() {
		f.Add([]byte(body))
	}
	f.Fuzz(compareDecoders)
}

func TestCheckBodyFindsAMember(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"email":"a@example.com","password":"x"}`:      "a@example.com",
		`{"password":"x","email":"\u0061@example.com"}`: "a@example.com",
		`{"Email":"a"}`:                           "", // Decode refuses the name.
		`{"email":1}`:                             "",
		`{"email":null}`:                          "",
		`{"email":["a"]}`:                         "",
		`{"email":{"email":"a"}}`:                 "",
		`{"x":{"email":"a"}}`:                     "",
		`{"x":"email","y":"a"}`:                   "",
		`{"x":["email","a"],"email":"b"}`:         "b",
		`{"email":{},"x":"a"}`:                    "",
		`{"email":"a","email":"b"}`:               "", // malformed
		`{"email":"a"`:                            "",
		`{"x":{"y":[1,{}]},"email":"c","z":[{}]}`: "c",
		`{"":"a"}`:                                "",
	} {
		if got, _ := web.CheckBody([]byte(body), "email"); got != want {
			t.Errorf("CheckBody(%s) = %q, want %q", body, got, want)
		}
	}
}

type credentials struct {
	Email      string `json:"email"`
	Password   string `json:"password"`
	DeviceName string `json:"deviceName"`
}

var login = []byte(`{"email":"ada@example.com","password":"correct horse battery","deviceName":"Laptop"}`)

func BenchmarkDecode(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := web.Decode[credentials](login); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckBody(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := web.CheckBody(login, "email"); err != nil {
			b.Fatal(err)
		}
	}
}
