// Prints what Go's readers make of values.json and values.yaml, one JSON object for each: text as it is, and a number as
// it was read.
package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/docker/cli/pkg/kvfile"
	"gopkg.in/yaml.v3"
)

func read(path string, unmarshal func([]byte, any) error) {
	bytes, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	var found map[string]any
	if err := unmarshal(bytes, &found); err != nil {
		panic(err)
	}
	shown := map[string][2]any{}
	for name, value := range found {
		_, isText := value.(string)
		shown[name] = [2]any{isText, fmt.Sprint(value)}
	}
	line, err := json.Marshal(shown)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

// Go's own refuses numbers beyond a float's range unless it is told to keep their text.
func unmarshal(bytes []byte, into any) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(bytes, &raw); err != nil {
		return err
	}
	found := map[string]any{}
	for name, text := range raw {
		var value any
		if json.Unmarshal(text, &value) != nil {
			value = json.Number(text)
		}
		found[name] = value
	}
	*into.(*map[string]any) = found
	return nil
}

// What the readers of exported variables have: a line of JSON for each, values as hexadecimal digits.
func exported(directory string) {
	for _, format := range []string{"json", "yaml", "compose", "docker"} {
		path := directory + "/export." + format
		bytes, err := os.ReadFile(path)
		if err != nil {
			panic(err)
		}
		found := map[string]string{}
		switch format {
		case "json":
			err = json.Unmarshal(bytes, &found)
		case "yaml":
			err = yaml.Unmarshal(bytes, &found)
		case "compose":
			// As compose does: $ is filled in from the shell's variables.
			found, err = dotenv.ParseWithLookup(strings.NewReader(string(bytes)), os.LookupEnv)
		case "docker":
			var lines []string
			lines, err = kvfile.Parse(path, os.LookupEnv)
			for _, line := range lines {
				name, value, _ := strings.Cut(line, "=")
				found[name] = value
			}
		}
		if err != nil {
			panic(format + ": " + err.Error())
		}
		for name, value := range found {
			found[name] = hex.EncodeToString([]byte(value))
		}
		line, err := json.Marshal(found)
		if err != nil {
			panic(err)
		}
		fmt.Println(string(line))
	}
}

func main() {
	if os.Args[1] == "exported" {
		exported(os.Args[2])
		return
	}
	read(os.Args[1]+"/values.json", unmarshal)
	read(os.Args[1]+"/values.yaml", yaml.Unmarshal)
}
