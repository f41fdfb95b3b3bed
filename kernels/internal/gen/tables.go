package main

import (
	"fmt"
	"sort"
	"strings"
)

// tables writes, for functions named base_PxNB, a table
// baseTable[NB-1][P-1] of them.
func (a *asm) tables() string {
	type key struct{ p, nb int }
	byBase := map[string]map[key]string{}
	for _, n := range a.names {
		base, dims, ok := strings.Cut(n, "_")
		if !ok {
			continue
		}
		var k key
		if _, err := fmt.Sscanf(dims, "%dx%d", &k.p, &k.nb); err != nil {
			continue
		}
		if byBase[base] == nil {
			byBase[base] = map[key]string{}
		}
		byBase[base][k] = n
	}
	var bases []string
	for b := range byBase {
		bases = append(bases, b)
	}
	sort.Strings(bases)
	var s strings.Builder
	for _, b := range bases {
		maxP, maxNB := 0, 0
		for k := range byBase[b] {
			maxP, maxNB = max(maxP, k.p), max(maxNB, k.nb)
		}
		typ := "tileArgs"
		if strings.Contains(b, "I8") {
			typ = "tileArgsI8"
		}
		fmt.Fprintf(&s, "\n// %sTable holds the variants by blocks and positions.\nvar %sTable = [%d][%d]func(*%s){\n", b, b, maxNB, maxP, typ)
		for nb := 1; nb <= maxNB; nb++ {
			s.WriteString("{")
			for p := 1; p <= maxP; p++ {
				name := byBase[b][key{p, nb}]
				if name == "" {
					name = "nil"
				}
				fmt.Fprintf(&s, "%s, ", name)
			}
			s.WriteString("},\n")
		}
		s.WriteString("}\n")
	}
	return s.String()
}
