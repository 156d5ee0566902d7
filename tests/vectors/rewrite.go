// Reads a JSON text a line, itself written as a JSON string; writes it as encoding/json would.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"os"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var text string
		var value interface{}
		if err := json.Unmarshal(lines.Bytes(), &text); err != nil {
			log.Fatal(err)
		}
		if err := json.Unmarshal([]byte(text), &value); err != nil {
			log.Fatal(err)
		}
		written, err := json.Marshal(value)
		if err != nil {
			log.Fatal(err)
		}
		quoted, _ := json.Marshal(string(written))
		fmt.Println(string(quoted))
	}
}
