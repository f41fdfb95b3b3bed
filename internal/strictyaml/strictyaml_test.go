package strictyaml

import "testing"

type doc struct {
	A    int            `yaml:"a"`
	List []string       `yaml:"list"`
	Map  map[string]any `yaml:"map"`
}

func TestUnmarshal(t *testing.T) {
	for _, c := range []struct {
		text string
		ok   bool
	}{{"a: 1\nlist: [x, y]\n", true}, {"b: 1\n", false}, {"a: [\n", false}, {"list: *x\n", false}} {
		var d doc
		if err := Unmarshal([]byte(c.text), &d); (err == nil) != c.ok {
			t.Errorf("%q: %v", c.text, err)
		}
	}
}
