package pattern

import (
	"slices"
	"testing"
)

func TestMatch(t *testing.T) {
	names := []string{"b1", "a1", "a2", "c*"}
	for pattern, want := range map[string][]string{
		"a*": {"a1", "a2"}, "?1": {"b1", "a1"}, "[ab]1": {"b1", "a1"}, "*": names, "zz": {"zz"}, `c\*`: {"c*"},
	} {
		if got, err := Match(pattern, names); err != nil || !slices.Equal(got, want) {
			t.Errorf("Match(%q) = %v, %v, want %v", pattern, got, err, want)
		}
	}
	for _, pattern := range []string{"zz*", "[", "[a"} {
		if got, err := Match(pattern, names); err == nil {
			t.Errorf("Match(%q) = %v", pattern, got)
		}
	}
}
