// Prints what Go's readers make of values.json and values.yaml, one JSON object for each: text as it is, and a number as
// it was read.
package main

import (
	"encoding/json"
	"fmt"
	"os"

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

func main() {
	read(os.Args[1]+"/values.json", unmarshal)
	read(os.Args[1]+"/values.yaml", yaml.Unmarshal)
}
