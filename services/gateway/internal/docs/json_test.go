package docs

import (
	"strings"
	"testing"
)

func TestToJSON(t *testing.T) {
	t.Parallel()
	const yaml = `
x-shared:
  a: &a {'400': one, '401': two}
  b: &b
    <<: *a
    '401': three
z: {<<: *b, '200': [1, true, null, 1.5, '007', yes], '400': own}
after: &text |
  "a"
  b
again: *text
`
	const want = `{"z":{"400":"own","401":"three","200":[1,true,null,1.5,"007","yes"]},"after":"\"a\"\nb\n","again":"\"a\"\nb\n"}`
	got, err := toJSON([]byte(yaml))
	if err != nil || string(got) != want {
		t.Errorf("toJSON() = %s, %v, want %s", got, err, want)
	}
	for yaml, fault := range map[string]string{
		"a: 1\nb: 2\na: 3":       `line 3: duplicate member "a"`,
		"a: {b: {c: 1, c: 2}}":   `line 1: duplicate member "c"`,
		"a: &a [1]\nb: {<<: *a}": "line 2: a merge needs a mapping",
		"[1]":                    "want one mapping",
		"a: [":                   "did not find",
	} {
		if got, err := toJSON([]byte(yaml)); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("toJSON(%q) = %s, %v, want %s", yaml, got, err, fault)
		}
	}
}
