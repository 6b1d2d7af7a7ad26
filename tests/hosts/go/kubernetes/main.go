// Expands $(NAME) in stdin as the kubelet does, with the variables given as NAME=VALUE arguments.
//
// https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
package main

import (
	"io"
	"os"
	"strings"

	"k8s.io/kubernetes/third_party/forked/golang/expansion"
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
	os.Stdout.WriteString(expansion.Expand(string(text), expansion.MappingFuncFor(variables)))
}
