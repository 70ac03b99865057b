package service

import (
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Table writes the environment variables of cfg, a configuration struct, as the
// Markdown table of a service's README. It reads the tags of the fields.
func Table(w io.Writer, cfg any) error {
	var b strings.Builder
	b.WriteString("| variable | default | meaning |\n|---|---|---|\n")
	rows(&b, reflect.TypeOf(cfg))
	_, err := io.WriteString(w, b.String())
	return err
}

func rows(b *strings.Builder, t reflect.Type) {
	for field := range t.Fields() {
		if field.Anonymous && field.Type.Kind() == reflect.Struct {
			rows(b, field.Type)
			continue
		}
		name := field.Tag.Get("envconfig")
		if name == "" {
			continue
		}
		standard := field.Tag.Get("default")
		switch {
		case field.Tag.Get("generate") == "true":
			standard = "required; generated in development"
		case field.Tag.Get("required") == "true":
			standard = "required"
		case standard != "":
			standard = "`" + standard + "`"
		}
		note := field.Tag.Get("desc")
		if field.Type == reflect.TypeFor[Secret]() {
			note += fmt.Sprintf(" Secret; may be read from the file that `%s_FILE` names.", name)
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", name, standard, note)
	}
}
