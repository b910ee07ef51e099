// Chart-check does for tests/chart what bash cannot: it reads YAML, and judges the health of objects with the code that
// Argo CD (gopher-lua) and Flux (its CEL evaluator and kstatus) use themselves.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

const usage = `usage: chart-check COMMAND
  json                       YAML documents of standard input -> one line of JSON each
  values FILE                values.yaml with its comments -> Markdown
  argocd HEALTH.lua OBJECT   health of an object as Argo CD's script tells it, JSON
  kstatus OBJECT             status of an object by its conditions, as Flux does when nothing is configured, JSON
  flux EXPRESSIONS OBJECT    status of an object by a Kustomization's healthCheckExprs, JSON`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "chart-check:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "json":
		return toJSON(os.Stdin, os.Stdout)
	case len(args) == 2 && args[0] == "values":
		return values(args[1], os.Stdout)
	case len(args) == 3 && args[0] == "argocd":
		return argocd(args[1], args[2])
	case len(args) == 2 && args[0] == "kstatus":
		return kstatus(args[1])
	case len(args) == 3 && args[0] == "flux":
		return flux(args[1], args[2])
	}
	return errors.New(usage)
}

func toJSON(in io.Reader, out io.Writer) error {
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	for _, document := range strings.Split("\n"+string(text), "\n---") {
		line, err := yaml.YAMLToJSON([]byte(document))
		if err != nil {
			return err
		}
		if string(line) != "null" {
			fmt.Fprintln(out, string(line))
		}
	}
	return nil
}

// object reads the one object of a YAML file.
func object(path string) (*unstructured.Unstructured, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	line, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	// Of this decoder, whole numbers are int64, as the evaluators expect.
	read := &unstructured.Unstructured{}
	if err := read.UnmarshalJSON(line); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return read, nil
}

// verdict is what Argo CD calls health and kstatus calls status.
type verdict struct {
	Status  string `json:"status"`
	Message string `json:"message,omitempty"`
}

func show(result verdict) error {
	return json.NewEncoder(os.Stdout).Encode(result)
}

func kstatus(path string) error {
	read, err := object(path)
	if err != nil {
		return err
	}
	result, err := status.Compute(read)
	if err != nil {
		return err
	}
	return show(verdict{string(result.Status), result.Message})
}

func flux(expressionsPath, path string) error {
	read, err := object(path)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(expressionsPath)
	if err != nil {
		return err
	}
	var kustomization struct {
		Spec struct {
			HealthCheckExprs []kustomize.CustomHealthCheck `json:"healthCheckExprs"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &kustomization); err != nil {
		return fmt.Errorf("%s: %w", expressionsPath, err)
	}
	for _, check := range kustomization.Spec.HealthCheckExprs {
		if check.APIVersion != read.GetAPIVersion() || check.Kind != read.GetKind() {
			continue
		}
		evaluator, err := cel.NewStatusEvaluator(&check.HealthCheckExpressions)
		if err != nil {
			return err
		}
		result, err := evaluator.Evaluate(context.Background(), read)
		if err != nil {
			return err
		}
		return show(verdict{Status: string(result.Status)})
	}
	return fmt.Errorf("%s has no healthCheckExprs for %s", expressionsPath, read.GetKind())
}
