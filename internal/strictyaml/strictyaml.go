// Package strictyaml decodes YAML that people write: unknown keys are errors
// with their line, and no document makes the decoder panic.
package strictyaml

import (
	"fmt"

	"github.com/goccy/go-yaml"
)

// Unmarshal decodes data into v; a key that v does not have is an error. The
// decoder of goccy/go-yaml dereferences nil on some malformed sequences (an
// alias or anchor without a value); that becomes an error here.
func Unmarshal(data []byte, v any) (err error) {
	defer func() {
		if e := recover(); e != nil {
			err = fmt.Errorf("malformed document (%v)", e)
		}
	}()
	return yaml.UnmarshalWithOptions(data, v, yaml.Strict())
}
