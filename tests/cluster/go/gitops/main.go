// What Argo CD would show as drift: its own diff engine, with what a chart renders and what the cluster has.
//
//	gitops diff   reads {"wanted": …, "live": …} per line, and writes {"object": "Kind name", "drift": […]} per line
//
// What Argo CD tracks an application by is not put into what is wanted: it is on both sides.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"sort"

	"github.com/argoproj/gitops-engine/pkg/diff"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// An object of a chart and its namesake in the cluster.
type pair struct {
	Wanted map[string]any `json:"wanted"`
	Live   map[string]any `json:"live"`
}

type verdict struct {
	Object string   `json:"object"`
	Drift  []string `json:"drift"`
}

func main() {
	if len(os.Args) != 2 || os.Args[1] != "diff" {
		fmt.Fprintln(os.Stderr, "usage: gitops diff")
		os.Exit(2)
	}
	if err := judge(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "gitops:", err)
		os.Exit(1)
	}
}

func judge(in io.Reader, out io.Writer) error {
	decoder, encoder := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var each pair
		err := decoder.Decode(&each)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		told, err := compare(each)
		if err != nil {
			return err
		}
		if err := encoder.Encode(told); err != nil {
			return err
		}
	}
}

// compare asks the engine as Argo CD's controller does: three ways if the object says what was applied last, else two.
func compare(each pair) (verdict, error) {
	wanted := &unstructured.Unstructured{Object: each.Wanted}
	live := &unstructured.Unstructured{Object: each.Live}
	told := verdict{Object: wanted.GetKind() + " " + wanted.GetName(), Drift: []string{}}
	result, err := diff.Diff(wanted, live)
	if err != nil {
		return told, fmt.Errorf("%s: %w", told.Object, err)
	}
	if !result.Modified {
		return told, nil
	}
	var predicted, normalized any
	if err := json.Unmarshal(result.PredictedLive, &predicted); err != nil {
		return told, err
	}
	if err := json.Unmarshal(result.NormalizedLive, &normalized); err != nil {
		return told, err
	}
	walk("", predicted, normalized, &told.Drift)
	sort.Strings(told.Drift)
	return told, nil
}

// walk lists the places where the two differ.
func walk(place string, wanted, live any, drift *[]string) {
	if reflect.DeepEqual(wanted, live) {
		return
	}
	left, isMap := wanted.(map[string]any)
	right, isMapToo := live.(map[string]any)
	if isMap && isMapToo {
		names := map[string]bool{}
		for name := range left {
			names[name] = true
		}
		for name := range right {
			names[name] = true
		}
		for name := range names {
			walk(place+"/"+name, left[name], right[name], drift)
		}
		return
	}
	ones, isList := wanted.([]any)
	others, isListToo := live.([]any)
	if isList && isListToo && len(ones) == len(others) {
		for at := range ones {
			walk(fmt.Sprintf("%s/%d", place, at), ones[at], others[at], drift)
		}
		return
	}
	*drift = append(*drift, place)
}
