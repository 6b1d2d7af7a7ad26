// Substitutes ${NAME} in stdin as Flux's `postBuild` does, with the variables given as NAME=VALUE arguments.
//
// https://fluxcd.io/flux/components/kustomize/kustomizations/#post-build-variable-substitution
package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/fluxcd/pkg/envsubst"
)

func main() {
	variables := map[string]string{}
	for _, argument := range os.Args[1:] {
		name, value, _ := strings.Cut(argument, "=")
		variables[name] = value
	}
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	result, err := envsubst.Eval(string(text), func(name string) (string, bool) {
		value, found := variables[name]
		return value, found
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Stdout.WriteString(result)
}
