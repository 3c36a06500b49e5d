// Command health says what GitOps tools make of a resource, by the libraries that they use themselves. It reads the
// resource as JSON from standard input, and writes one word.
//
//	health kstatus            kstatus: Helm, and Flux where it is told nothing else
//	health argocd FILE        Argo CD: the customization in FILE, a Lua script
//	health flux FILE          Flux: the healthCheckExprs in FILE, for the resource's kind
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func main() {
	word, err := health(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "health:", err)
		os.Exit(1)
	}
	fmt.Println(word)
}

func health(arguments []string) (string, error) {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return "", err
	}
	var object unstructured.Unstructured
	if err := object.UnmarshalJSON(text); err != nil {
		return "", err
	}
	switch {
	case len(arguments) == 1 && arguments[0] == "kstatus":
		result, err := status.Compute(&object)
		if err != nil {
			return "", err
		}
		return result.Status.String(), nil
	case len(arguments) == 2 && arguments[0] == "argocd":
		return argocd(arguments[1], &object)
	case len(arguments) == 2 && arguments[0] == "flux":
		return flux(arguments[1], &object)
	}
	return "", errors.New("usage: health kstatus | argocd FILE | flux FILE")
}

func argocd(file string, object *unstructured.Unstructured) (string, error) {
	state := lua.NewState()
	defer state.Close()
	state.SetGlobal("obj", value(state, object.Object))
	if err := state.DoFile(file); err != nil {
		return "", err
	}
	answer, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return "", errors.New("the script does not return a table")
	}
	return answer.RawGetString("status").String(), nil
}

// JSON as Lua has it.
func value(state *lua.LState, from any) lua.LValue {
	switch from := from.(type) {
	case map[string]any:
		table := state.NewTable()
		for key, inner := range from {
			table.RawSetString(key, value(state, inner))
		}
		return table
	case []any:
		table := state.NewTable()
		for _, inner := range from {
			table.Append(value(state, inner))
		}
		return table
	case string:
		return lua.LString(from)
	case bool:
		return lua.LBool(from)
	case float64:
		return lua.LNumber(from)
	case int64:
		return lua.LNumber(from)
	}
	return lua.LNil
}

func flux(file string, object *unstructured.Unstructured) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	var checks []kustomize.CustomHealthCheck
	if err := yaml.UnmarshalStrict(text, &checks); err != nil {
		return "", err
	}
	for _, check := range checks {
		if check.APIVersion != object.GetAPIVersion() || check.Kind != object.GetKind() {
			continue
		}
		evaluator, err := cel.NewStatusEvaluator(&check.HealthCheckExpressions)
		if err != nil {
			return "", err
		}
		result, err := evaluator.Evaluate(context.Background(), object)
		if err != nil {
			return "", err
		}
		return result.Status.String(), nil
	}
	return "", fmt.Errorf("%s says nothing about %s %s", file, object.GetAPIVersion(), object.GetKind())
}
