// `helm template CHART` with a post-renderer, by a strategy that Helm 4 offers to programs but not on its command line.
//
//	strategy STRATEGY CHART POST_RENDERER
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/loader"
	release "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage"
	"helm.sh/helm/v4/pkg/storage/driver"
)

type command string

func (name command) Run(manifests *bytes.Buffer) (*bytes.Buffer, error) {
	var result bytes.Buffer
	process := exec.Command(string(name))
	process.Stdin, process.Stdout, process.Stderr = manifests, &result, os.Stderr
	return &result, process.Run()
}

func render(strategy, folder, postRenderer string) (*release.Release, error) {
	chart, err := loader.LoadDir(folder)
	if err != nil {
		return nil, err
	}
	configuration := action.NewConfiguration()
	configuration.Releases = storage.Init(driver.NewMemory())
	install := action.NewInstall(configuration)
	install.ReleaseName = "demo"
	install.DryRunStrategy = action.DryRunClient
	install.PostRenderer = command(postRenderer)
	install.PostRenderStrategy = action.PostRenderStrategy(strategy)
	result, err := install.Run(chart, map[string]any{"hook": true})
	if err != nil {
		return nil, err
	}
	return result.(*release.Release), nil
}

func main() {
	result, err := render(os.Args[1], os.Args[2], os.Args[3])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(result.Manifest)
	for _, hook := range result.Hooks {
		fmt.Printf("---\n# Source: %s\n%s\n", hook.Path, hook.Manifest)
	}
}
