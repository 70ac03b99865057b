package main

import (
	"strings"
	"unicode"
)

// word is a part of a text, in lower case, and the offset at which it begins.
type word struct {
	text       string
	offset     int
	hyphenated bool // follows a hyphen
}

// split returns the words of an identifier, a metric name or a sentence: at each
// character that is neither letter nor digit, before an upper-case letter that
// follows a lower-case one (camelCase), and before the last capital of an acronym that
// a lower-case letter follows (HTTPServer).
func split(text string) []word {
	var words []word
	runes := []rune(text)
	var current strings.Builder
	offset, start, hyphen := 0, 0, -1
	flush := func() {
		if current.Len() > 0 {
			words = append(words, word{strings.ToLower(current.String()), start, hyphen == start})
			current.Reset()
		}
	}
	for i, r := range runes {
		if !unicode.IsLetter(r) {
			flush() // Digits part words, too: SEC62Held.
			if r == '-' {
				hyphen = offset + 1
			}
		} else {
			if i > 0 && unicode.IsUpper(r) && (unicode.IsLower(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])) {
				flush()
			}
			if current.Len() == 0 {
				start = offset
			}
			current.WriteRune(r)
		}
		offset += len(string(r))
	}
	flush()
	return words
}

// match is a retired word that was found.
type match struct {
	form   string
	use    string
	offset int
}

// matches returns the terms that words has and that accept.
func matches(words []word, accept func(term) bool) []match {
	var found []match
	for _, t := range terms {
		if !accept(t) {
			continue
		}
		for _, form := range t.forms {
			parts := strings.Fields(form)
			for i := range words {
				if hasAt(words, i, parts) && (t.after == "" || i == 0 || words[i-1].text != t.after) {
					found = append(found, match{form, t.use, words[i].offset})
				}
			}
		}
	}
	return found
}

func hasAt(words []word, at int, parts []string) bool {
	if at+len(parts) > len(words) {
		return false
	}
	for i, part := range parts {
		// A file name such as 0005-put-off.md is not the phrase.
		if words[at+i].text != part || i > 0 && words[at+i].hyphenated {
			return false
		}
	}
	return true
}

// inIdentifier returns the retired words of a declared identifier that is not a type.
func inIdentifier(name string) []match {
	found := matches(split(name), func(t term) bool { return t.scope == anyWord })
	return append(found, matches(whole(name), func(t term) bool { return t.scope == identifier })...)
}

// inTypeName returns the retired words of the name of a type.
func inTypeName(name string) []match {
	return append(inIdentifier(name), matches(whole(name), func(t term) bool { return t.scope == typeName })...)
}

func whole(name string) []word { return []word{{text: strings.ToLower(name)}} }

// inText returns the retired words of a metric, a log message or an error.
func inText(text string) []match {
	return matches(split(text), func(t term) bool { return t.scope == anyWord })
}

// inProse returns the retired words of a comment or a document.
func inProse(text string) []match {
	return matches(split(text), func(t term) bool { return t.prose })
}
