package onnx

import (
	"strings"
	"testing"
)

// Masks and caches of fused attention are refused by name, and so is what does
// not fit; TestContrib compares what is read with ONNX Runtime.
func TestAttentionRefusals(t *testing.T) {
	qkv := map[string][]int64{"q": {1, 3, 8}, "k": {1, 3, 8}, "v": {1, 3, 8}, "m": {1}}
	w := floatTensor("w", []int64{8, 24}, make([]float32, 192)...)
	for _, c := range []struct {
		op    string
		in    []string
		attrs []byte
		want  string
	}{
		{"Attention", []string{"q", "w", "", "m"}, RawAttr("num_heads", 2), "a mask (input 3)"},
		{"Attention", []string{"q", "w"}, RawAttr("num_heads", 3), "3 heads do not fit"},
		{"Attention", []string{"q", "k"}, RawAttr("num_heads", 2), "three equal parts"},
		{"MultiHeadAttention", []string{"q", "k", "v", "", "", "", "m"}, RawAttr("num_heads", 2), "a cache (input 6)"},
		{"MultiHeadAttention", []string{"q"}, RawAttr("num_heads", 2), "packed ones"},
	} {
		file := RawModel([]RawNode{{Op: c.op, Domain: "com.microsoft", In: c.in, Out: []string{"y"}, Attrs: c.attrs}}, qkv, [][]byte{w}, "y")
		if err := oneLineError(t, file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s of %q: error %v, want one that says %q", c.op, c.in, err, c.want)
		}
	}
}
