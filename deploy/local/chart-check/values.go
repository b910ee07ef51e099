package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
)

// row is one value that may be set.
type row struct{ path, text, value string }

// values writes one table for the values at the top, and one for each map at the top. The comment above a key describes
// it; a key without one is described by its map.
func values(path string, out io.Writer) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return err
	}
	if len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		return fmt.Errorf("%s is not one map", path)
	}
	var plain []row
	var sections strings.Builder
	for key, value := range entries(document.Content[0]) {
		about := comment(key)
		if about == "" {
			return fmt.Errorf("%s, line %d: %s has no comment", path, key.Line, key.Value)
		}
		if value.Kind != yaml.MappingNode || len(value.Content) == 0 {
			plain = append(plain, row{key.Value, about, shown(value)})
			continue
		}
		var rows []row
		collect(key.Value, "", value, &rows)
		fmt.Fprintf(&sections, "\n### %s\n\n%s\n\n", key.Value, about)
		table(&sections, rows)
	}
	fmt.Fprint(out, "### Values at the top\n\n")
	table(out, plain)
	_, err = fmt.Fprint(out, sections.String())
	return err
}

// entries yields key and value of each entry of a map.
func entries(node *yaml.Node) func(func(*yaml.Node, *yaml.Node) bool) {
	return func(yield func(*yaml.Node, *yaml.Node) bool) {
		for i := 0; i+1 < len(node.Content); i += 2 {
			if !yield(node.Content[i], node.Content[i+1]) {
				return
			}
		}
	}
}

func collect(path, inherited string, node *yaml.Node, rows *[]row) {
	for key, value := range entries(node) {
		about := comment(key)
		if about == "" {
			about = inherited
		}
		here := path + "." + key.Value
		if value.Kind == yaml.MappingNode && len(value.Content) > 0 && value.Style != yaml.FlowStyle {
			collect(here, about, value, rows)
			continue
		}
		*rows = append(*rows, row{here, about, shown(value)})
	}
}

// comment is the text of the lines right above a key. Lines that begin with `#|` are examples and left out.
func comment(key *yaml.Node) string {
	paragraphs := strings.Split(key.HeadComment, "\n\n")
	var words []string
	for _, line := range strings.Split(paragraphs[len(paragraphs)-1], "\n") {
		if !strings.HasPrefix(line, "#|") {
			words = append(words, strings.TrimSpace(strings.TrimPrefix(line, "#")))
		}
	}
	return strings.TrimSpace(strings.Join(words, " "))
}

func shown(node *yaml.Node) string {
	var value any
	if err := node.Decode(&value); err != nil {
		return err.Error()
	}
	line, err := json.Marshal(value)
	if err != nil {
		return err.Error()
	}
	return string(line)
}

func table(out io.Writer, rows []row) {
	fmt.Fprint(out, "| value | default | meaning |\n|---|---|---|\n")
	cell := strings.NewReplacer("|", `\|`, "<", "&lt;")
	for _, row := range rows {
		fmt.Fprintf(out, "| `%s` | `%s` | %s |\n", row.path, cell.Replace(row.value), cell.Replace(row.text))
	}
}
