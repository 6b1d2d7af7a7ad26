// Kubernetes' and Helm's own reading of YAML, to hold ours against.
//
// stdin: inputs, each after its length in 4 bytes, big endian. stdout, for each: one JSON line. By argument:
//
//	json         a document as sigs.k8s.io/yaml decodes it: {"value": ...}, or {"error": "..."}
//	kubernetes   a stream as kubectl splits it: {"documents": ["<base64>", ...]}, or {"error": "..."}
//	helm3 helm4  the same as that Helm splits it
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sort"

	helm3 "helm.sh/helm/v3/pkg/releaseutil"
	helm4 "helm.sh/helm/v4/pkg/release/v1/util"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

type answer struct {
	Value     json.RawMessage `json:"value,omitempty"`
	Documents [][]byte        `json:"documents,omitempty"`
	Error     string          `json:"error,omitempty"`
}

func decode(document []byte) answer {
	value, err := yaml.YAMLToJSON(document)
	if err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Value: value}
}

func splitKubernetes(stream []byte) answer {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(stream)))
	var found answer
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			return answer{Error: err.Error()}
		}
		found.Documents = append(found.Documents, document)
	}
}

func splitHelm3(stream []byte) answer { return inOrder(helm3.SplitManifests(string(stream))) }

func splitHelm4(stream []byte) answer { return inOrder(helm4.SplitManifests(string(stream))) }

// The names end in a number; both Helms sort them by it.
func inOrder(documents map[string]string) answer {
	names := slices.Collect(maps.Keys(documents))
	sort.Sort(helm4.BySplitManifestsOrder(names))
	var found answer
	for _, name := range names {
		found.Documents = append(found.Documents, []byte(documents[name]))
	}
	return found
}

func main() {
	modes := map[string]func([]byte) answer{"json": decode, "kubernetes": splitKubernetes, "helm3": splitHelm3, "helm4": splitHelm4}
	mode := modes[os.Args[1]]
	input, output := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	for {
		var length uint32
		if err := binary.Read(input, binary.BigEndian, &length); err != nil {
			break
		}
		data := make([]byte, length)
		if _, err := io.ReadFull(input, data); err != nil {
			panic(err)
		}
		line, err := json.Marshal(mode(data))
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(output, "%s\n", line)
		output.Flush()
	}
}
