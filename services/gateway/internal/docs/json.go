package docs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// toJSON converts a YAML document to JSON. Members keep their order, aliases and merges are
// expanded, and members of the root that begin with x- are omitted.
func toJSON(source []byte) ([]byte, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(source, &document); err != nil {
		return nil, err
	}
	if len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("want one mapping")
	}
	root, err := membersOf(document.Content[0])
	if err != nil {
		return nil, err
	}
	served := root[:0]
	for _, m := range root {
		if !strings.HasPrefix(m.name, "x-") {
			served = append(served, m)
		}
	}
	var b bytes.Buffer
	err = writeMembers(&b, served)
	return b.Bytes(), err
}

func write(b *bytes.Buffer, n *yaml.Node) error {
	switch n.Kind {
	case yaml.AliasNode:
		return write(b, n.Alias)
	case yaml.MappingNode:
		members, err := membersOf(n)
		if err != nil {
			return err
		}
		return writeMembers(b, members)
	case yaml.SequenceNode:
		b.WriteByte('[')
		for i, item := range n.Content {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := write(b, item); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	default:
		var value any
		if err := n.Decode(&value); err != nil {
			return err
		}
		return writeValue(b, value)
	}
}

func writeMembers(b *bytes.Buffer, members []member) error {
	b.WriteByte('{')
	for i, m := range members {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := writeValue(b, m.name); err != nil {
			return err
		}
		b.WriteByte(':')
		if err := write(b, m.value); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

func writeValue(b *bytes.Buffer, value any) error {
	encoded, err := json.Marshal(value)
	b.Write(encoded)
	return err
}

type member struct {
	name   string
	value  *yaml.Node
	merged bool // Comes from a merge, so the mapping's own member takes precedence.
}

// membersOf returns the members of a mapping. It fails on a duplicate member.
func membersOf(n *yaml.Node) ([]member, error) {
	var members []member
	at := map[string]int{}
	add := func(m member, line int) error {
		i, there := at[m.name]
		switch {
		case !there:
			at[m.name] = len(members)
			members = append(members, m)
		case m.merged:
		case members[i].merged:
			members[i] = m
		default:
			return fmt.Errorf("line %d: duplicate member %q", line, m.name)
		}
		return nil
	}
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Tag != "!!merge" {
			if err := add(member{name: key.Value, value: value}, key.Line); err != nil {
				return nil, err
			}
			continue
		}
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		if value.Kind != yaml.MappingNode {
			return nil, fmt.Errorf("line %d: a merge needs a mapping", key.Line)
		}
		merged, err := membersOf(value)
		if err != nil {
			return nil, err
		}
		for _, m := range merged {
			m.merged = true
			if err := add(m, key.Line); err != nil {
				return nil, err
			}
		}
	}
	return members, nil
}
