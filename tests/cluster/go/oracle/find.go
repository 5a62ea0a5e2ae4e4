package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// Larger files are generated: definitions of custom resources, mostly.
const mostFileBytes = 1 << 20

// find writes every pod that a file below the directories describes, each once.
func find(directories []string, out io.Writer) error {
	writer := bufio.NewWriter(out)
	seen := map[string]bool{}
	add := func(pod map[string]any) error {
		line, err := json.Marshal(pod)
		if err != nil || seen[string(line)] || bytes.ContainsRune(line, '\n') {
			return err
		}
		seen[string(line)] = true
		_, err = writer.Write(append(line, '\n'))
		return err
	}
	for _, directory := range directories {
		err := filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			switch filepath.Ext(path) {
			case ".yaml", ".yml", ".json", ".injected":
			default:
				return nil
			}
			text, err := os.ReadFile(path)
			if err != nil || len(text) > mostFileBytes {
				return err
			}
			for _, pod := range podsOf(text) {
				if err := add(pod); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return writer.Flush()
}

// podsOf reads as many documents of a file as are YAML: templates of templates are none.
func podsOf(text []byte) (pods []map[string]any) {
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := documents.Read()
		if err != nil {
			return pods
		}
		var value any
		if yaml.Unmarshal(document, &value) != nil {
			continue
		}
		pods = append(pods, podsIn(value)...)
	}
}

// podsIn looks for what has containers, whatever it is called: a pod, a template, a part of some custom resource.
func podsIn(value any) (pods []map[string]any) {
	switch value := value.(type) {
	case []any:
		for _, item := range value {
			pods = append(pods, podsIn(item)...)
		}
	case map[string]any:
		if spec := specOf(value); spec != nil {
			pods = append(pods, podOf(spec, nil))
			break
		}
		spec, _ := value["spec"].(map[string]any)
		if spec := specOf(spec); spec != nil {
			metadata, _ := value["metadata"].(map[string]any)
			pods = append(pods, podOf(spec, metadata))
			break
		}
		for _, field := range value {
			pods = append(pods, podsIn(field)...)
		}
	}
	return pods
}

// specOf makes a pod's specification of what is one, or of what workflows write in place of one.
func specOf(value map[string]any) map[string]any {
	if containers, _ := value["containers"].([]any); len(containers) > 0 && allObjects(containers) {
		return named(value)
	}
	if container, _ := value["container"].(map[string]any); container["image"] != nil {
		sidecars, _ := value["sidecars"].([]any)
		spec := map[string]any{"containers": append([]any{container}, sidecars...)}
		for _, field := range []string{"initContainers", "volumes", "securityContext", "serviceAccountName", "nodeSelector"} {
			if value[field] != nil {
				spec[field] = value[field]
			}
		}
		return named(spec)
	}
	// A Task of Tekton.
	if steps, _ := value["steps"].([]any); len(steps) > 0 && allObjects(steps) && hasImage(steps[0]) {
		sidecars, _ := value["sidecars"].([]any)
		return named(map[string]any{"containers": append(append([]any{}, steps...), sidecars...), "volumes": value["volumes"]})
	}
	// A driver or executor of a SparkApplication.
	if value["cores"] != nil && value["memory"] != nil && value["image"] == nil {
		container := map[string]any{"name": "spark-kubernetes-driver", "image": "spark"}
		for _, field := range []string{"env", "envFrom", "lifecycle", "volumeMounts"} {
			if value[field] != nil {
				container[field] = value[field]
			}
		}
		sidecars, _ := value["sidecars"].([]any)
		spec := map[string]any{"containers": append([]any{container}, sidecars...), "restartPolicy": "Never"}
		for _, field := range []string{"hostNetwork", "initContainers", "nodeSelector", "tolerations", "affinity"} {
			if value[field] != nil {
				spec[field] = value[field]
			}
		}
		return named(spec)
	}
	return nil
}

func hasImage(container any) bool {
	fields, _ := container.(map[string]any)
	return fields["image"] != nil
}

func allObjects(list []any) bool {
	for _, item := range list {
		if _, isObject := item.(map[string]any); !isObject {
			return false
		}
	}
	return true
}

// named gives containers the names, images and volumes that controllers would: without them Kubernetes refuses the pod.
func named(spec map[string]any) map[string]any {
	volumes, _ := spec["volumes"].([]any)
	known := map[any]bool{}
	for _, item := range volumes {
		if volume, isObject := item.(map[string]any); isObject {
			known[volume["name"]] = true
		}
	}
	for _, list := range []string{"initContainers", "containers"} {
		containers, _ := spec[list].([]any)
		for _, item := range containers {
			container, isObject := item.(map[string]any)
			if !isObject {
				continue
			}
			if name, _ := container["name"].(string); name == "" || strings.ContainsAny(name, "{}") {
				container["name"] = "user-container"
			}
			if image, _ := container["image"].(string); image == "" {
				container["image"] = "image"
			}
			mounts, _ := container["volumeMounts"].([]any)
			for _, item := range mounts {
				if mount, isObject := item.(map[string]any); isObject && !known[mount["name"]] {
					known[mount["name"]] = true
					volumes = append(volumes, map[string]any{"name": mount["name"], "emptyDir": map[string]any{}})
				}
			}
		}
	}
	if len(volumes) > 0 {
		spec["volumes"] = volumes
	}
	return spec
}

func podOf(spec, metadata map[string]any) map[string]any {
	kept := map[string]any{"name": "pod"}
	for _, field := range []string{"labels", "annotations"} {
		if metadata[field] != nil {
			kept[field] = metadata[field]
		}
	}
	return map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": kept, "spec": spec}
}
