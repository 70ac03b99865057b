package textfield_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/textfield"
)

func codeOf(f *problem.Field) string {
	if f == nil {
		return ""
	}
	return f.Code
}

// TestSEC143Names is SEC-143: a name cannot hide or reorder the text around it; every script
// can be written.
func TestSEC143Names(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct{ text, code string }{
		"  Ann  ":               {"Ann", ""},
		"O’Neil-Müller":         {"O’Neil-Müller", ""},
		"می\u200cخواهم":         {"می\u200cخواهم", ""}, // Persian needs the non-joiner,
		"ක්\u200dර":             {"ක්\u200dර", ""},     // Sinhala and emoji the joiner,
		"👩\u200d💻":              {"👩\u200d💻", ""},
		"א\u200f!":              {"א\u200f!", ""}, // and mixed text the marks.
		"Ann\u202egnp.exe":      {"", "invalid_format"},
		"Ann\u2066x\u2069":      {"", "invalid_format"},
		"Ann\tBob":              {"", "invalid_format"},
		"Ann\nBob":              {"", "invalid_format"},
		"Ann\u2028Bob":          {"", "invalid_format"},
		"Ann\x7f":               {"", "invalid_format"},
		"Ann\xff":               {"", "invalid_format"},
		"Ann\x00":               {"", "nul_character"},
		"\u200b\u200d":          {"", ""},
		strings.Repeat("ä", 10): {strings.Repeat("ä", 10), ""},
		strings.Repeat("👍", 11): {"", "too_long"},
	} {
		got, fault := textfield.Line("name", text, 10)
		if strings.ContainsAny(text, "-.") {
			got, fault = textfield.Line("name", text, 20)
		}
		if got != want.text || codeOf(fault) != want.code {
			t.Errorf("Line(%q) = %q, %v, want %q %q", text, got, fault, want.text, want.code)
		}
	}
}

// TestLines: a text of several lines is kept as it was written.
func TestLines(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a\r\n\tb\n\nc ":         "",
		strings.Repeat("ä", 20):  "",
		strings.Repeat("ä", 21):  "too_long",
		"a\x00":                  "nul_character",
		"a\x1b[31m":              "invalid_format",
		"a\xff":                  "invalid_format",
		"left \u2066right\u2069": "",
	} {
		got, fault := textfield.Lines("bio", text, 20)
		if codeOf(fault) != want || want == "" && got != text {
			t.Errorf("Lines(%q) = %q, %v, want %q", text, got, fault, want)
		}
	}
}

func FuzzLine(f *testing.F) {
	f.Add(" Ann ")
	f.Add("a\u202eb\x00")
	f.Fuzz(func(t *testing.T, text string) {
		line, fault := textfield.Line("name", text, 10)
		if fault != nil {
			return
		}
		again, fault := textfield.Line("name", line, 10)
		if fault != nil || again != line || utf8.RuneCountInString(line) > 10 || strings.ContainsFunc(line, unicode.IsControl) {
			t.Errorf("Line(%q) = %q, then %q, %v", text, line, again, fault)
		}
	})
}
