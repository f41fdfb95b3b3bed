// Package pattern matches names by shell patterns.
package pattern

import (
	"fmt"
	"path"
	"strings"
)

// Match returns the names that a shell pattern matches, in their order (see
// path.Match). A pattern without any of *?[ is returned as it is, among the
// names or not.
func Match(pattern string, names []string) ([]string, error) {
	if !strings.ContainsAny(pattern, "*?[") {
		return []string{pattern}, nil
	}
	var out []string
	for _, n := range names {
		ok, err := path.Match(pattern, n)
		if err != nil {
			return nil, fmt.Errorf("pattern %q: %w", pattern, err)
		}
		if ok {
			out = append(out, n)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("nothing matches %q", pattern)
	}
	return out, nil
}
