package coreml

import (
	"strings"
	"testing"
)

// TestTitle encodes operations with names of every length class.
func TestTitle(t *testing.T) {
	for _, n := range []int{1, 50, 120, 124, 126, 127, 128, 140, 200, 16380, 20000} {
		o := &operation{typ: "relu", title: strings.Repeat("a", n), attrs: []attribute{{"axis", immediate(i32([]int{}, 1))}, {"val", immediate(i32([]int{}, 2))}}}
		var back operation
		if err := (&decoder{}).operation(o.encode(), &back, 0); err != nil {
			t.Fatalf("%d: %v", n, err)
		}
		if back.title != o.title || len(back.attrs) != 2 || back.attrs[0].key != "axis" {
			t.Errorf("a name of %d bytes comes back with %d", n, len(back.title))
		}
	}
}

// TestDecodeEncode: encoding what was decoded, and decoding that, changes
// nothing, for everything the shipped programs hold.
func TestDecodeEncode(t *testing.T) {
	specs, _ := shipped(t)
	for i, s := range specs {
		m, err := decodeModel(s)
		if err != nil {
			t.Fatal(err)
		}
		b := m.encode()
		// Nothing is lost but the attributes of the program, which say who
		// converted it.
		lost := 0
		_ = eachField(s, func(f field) error {
			if f.id != 502 {
				return nil
			}
			return eachField(f.data, func(g field) error {
				if g.id == 4 {
					lost += len(g.data) + 3
				}
				return nil
			})
		})
		if len(b) != len(s)-lost {
			t.Errorf("program %d: %d bytes become %d, %d of them attributes", i, len(s), len(b), lost)
		}
		again, err := decodeModel(b)
		if err != nil {
			t.Fatal(err)
		}
		if string(again.encode()) != string(b) {
			t.Errorf("program %d changes on the second encoding", i)
		}
	}
}
