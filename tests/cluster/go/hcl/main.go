// What a Terraform file gives to helm: read by HashiCorp's own parser, with the defaults of its variables.
//
//	hcl values FILE   writes the values of its helm_release, as YAML; refuses a file that `fmt` would change
package main

import (
	"bytes"
	"fmt"
	"os"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	yaml "github.com/zclconf/go-cty-yaml"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

func main() {
	if len(os.Args) != 3 || os.Args[1] != "values" {
		fmt.Fprintln(os.Stderr, "usage: hcl values FILE")
		os.Exit(2)
	}
	text, err := values(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "hcl:", err)
		os.Exit(1)
	}
	fmt.Print(text)
}

func values(path string) (string, error) {
	file, problems := hclparse.NewParser().ParseHCLFile(path)
	if problems.HasErrors() {
		return "", problems
	}
	if !bytes.Equal(hclwrite.Format(file.Bytes), file.Bytes) {
		return "", fmt.Errorf("%s is not formatted: terraform fmt, or tofu fmt", path)
	}
	body, isNative := file.Body.(*hclsyntax.Body)
	if !isNative {
		return "", fmt.Errorf("%s is not of HCL's native syntax", path)
	}
	variables, err := defaults(body)
	if err != nil {
		return "", err
	}
	context := &hcl.EvalContext{
		Variables: map[string]cty.Value{"var": cty.ObjectVal(variables)},
		Functions: map[string]function.Function{"yamlencode": yaml.YAMLEncodeFunc},
	}
	for _, block := range body.Blocks {
		if block.Type != "resource" || len(block.Labels) != 2 || block.Labels[0] != "helm_release" {
			continue
		}
		attribute, has := block.Body.Attributes["values"]
		if !has {
			return "", fmt.Errorf("%s: no values", block.DefRange())
		}
		value, problems := attribute.Expr.Value(context)
		if problems.HasErrors() {
			return "", problems
		}
		return value.Index(cty.NumberIntVal(0)).AsString(), nil
	}
	return "", fmt.Errorf("%s has no helm_release", path)
}

func defaults(body *hclsyntax.Body) (map[string]cty.Value, error) {
	found := map[string]cty.Value{}
	for _, block := range body.Blocks {
		if block.Type != "variable" {
			continue
		}
		value, problems := block.Body.Attributes["default"].Expr.Value(nil)
		if problems.HasErrors() {
			return nil, problems
		}
		found[block.Labels[0]] = value
	}
	return found, nil
}
