package device

import "testing"

func TestEveryEntryLoads(t *testing.T) {
	names := Names()
	if len(names) == 0 {
		_, err := Builtin()
		t.Fatal(err)
	}
	for _, n := range names {
		if _, err := Load(n); err != nil {
			t.Error(err)
		}
	}
}
