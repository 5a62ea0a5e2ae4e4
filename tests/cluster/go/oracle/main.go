// What Kubernetes itself makes of pods: defaults, validation and QoS class, as its API server applies them at creation.
//
//	oracle pods DIRECTORY...   finds pods, and templates of pods, in the YAML and JSON files below; one pod per line
//	oracle judge               reads one pod per line, and writes a verdict per line
//
// A verdict is {"problems": […], "qos": "Guaranteed", "pod": {…}}: the pod as a webhook would be shown it, with defaults.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	api "k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	"k8s.io/kubernetes/pkg/capabilities"
	"k8s.io/kubernetes/pkg/registry/core/pod"
)

// Pods that a webhook sees are no larger.
const mostBytes = 4 << 20

type verdict struct {
	Problems []string        `json:"problems"`
	QOS      string          `json:"qos,omitempty"`
	Pod      json.RawMessage `json:"pod,omitempty"`
}

func main() {
	// As every cluster has it that runs a network plugin.
	capabilities.Initialize(capabilities.Capabilities{AllowPrivileged: true})
	// On by itself from 1.35 and from 1.37, and asked for only where the operator says kubeletEnv or caBundle: where a
	// gate is closed, the fields are dropped instead of looked at.
	err := utilfeature.DefaultMutableFeatureGate.Set("EnvFiles=true,ClusterTrustBundle=true,ClusterTrustBundleProjection=true")
	switch {
	case err != nil:
	case len(os.Args) > 2 && os.Args[1] == "pods":
		err = find(os.Args[2:], os.Stdout)
	case len(os.Args) == 2 && os.Args[1] == "judge":
		err = judgeAll(os.Stdin, os.Stdout)
	default:
		err = errors.New("write oracle pods DIRECTORY..., or oracle judge")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(2)
	}
}

func judgeAll(in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, mostBytes)
	writer := bufio.NewWriter(out)
	encoder := json.NewEncoder(writer)
	for lines.Scan() {
		if err := encoder.Encode(judge(lines.Bytes())); err != nil {
			return err
		}
	}
	return errors.Join(lines.Err(), writer.Flush())
}

func judge(line []byte) verdict {
	object, _, err := legacyscheme.Codecs.UniversalDecoder(api.SchemeGroupVersion).Decode(line, nil, nil)
	if err != nil {
		return verdict{Problems: []string{err.Error()}}
	}
	asked, isPod := object.(*api.Pod)
	if !isPod {
		return verdict{Problems: []string{"not a pod"}}
	}
	if asked.Namespace == "" {
		asked.Namespace = "default"
	}
	// As a controller's pod gets one.
	if asked.Name == "" {
		asked.Name = asked.GenerateName + "x7k2p"
	}
	// The plugin ServiceAccount does this before any webhook is asked.
	if asked.Spec.ServiceAccountName == "" {
		asked.Spec.ServiceAccountName = "default"
	}
	shown, err := runtime.Encode(legacyscheme.Codecs.LegacyCodec(corev1.SchemeGroupVersion), asked)
	if err != nil {
		return verdict{Problems: []string{err.Error()}}
	}
	context := request.WithNamespace(context.Background(), asked.Namespace)
	pod.Strategy.PrepareForCreate(context, asked)
	judged := verdict{Problems: []string{}, QOS: string(asked.Status.QOSClass), Pod: shown}
	for _, problem := range pod.Strategy.Validate(context, asked) {
		judged.Problems = append(judged.Problems, problem.Error())
	}
	return judged
}
