package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// table prints aligned columns for people: text to the left, numbers to the
// right (a header that starts with ">" marks a number).
type table struct {
	head []string
	rows [][]string
}

func newTable(head ...string) *table { return &table{head: head} }

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(w io.Writer) {
	right := make([]bool, len(t.head))
	head := make([]string, len(t.head))
	width := make([]int, len(t.head))
	for i, h := range t.head {
		head[i], right[i] = strings.CutPrefix(h, ">")
		width[i] = utf8.RuneCountInString(head[i])
	}
	for _, r := range t.rows {
		for i, c := range r {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	line := func(cells []string) {
		var b strings.Builder
		for i, c := range cells {
			if i > 0 {
				b.WriteString("  ")
			}
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if right[i] {
				b.WriteString(pad + c)
			} else {
				b.WriteString(c + pad)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
	line(head)
	rule := make([]string, len(head))
	for i := range rule {
		rule[i] = strings.Repeat("-", width[i])
	}
	line(rule)
	for _, r := range t.rows {
		line(r)
	}
}

// ms formats a time in ms with three significant digits.
func ms(v float64) string { return sig(v, 3) }

// sig formats v with n significant digits, without an exponent.
func sig(v float64, n int) string {
	if v == 0 {
		return "0"
	}
	d := n - 1 - int(math.Floor(math.Log10(math.Abs(v))))
	return fmt.Sprintf("%.*f", max(0, min(d, 6)), v)
}

// size formats bytes with a decimal unit (1 MB = 1,000,000 bytes).
func size(n int64) string {
	switch v := float64(n); {
	case n >= 1e9:
		return sig(v/1e9, 3) + " GB"
	case n >= 1e6:
		return sig(v/1e6, 3) + " MB"
	case n >= 1e3:
		return sig(v/1e3, 3) + " kB"
	default:
		return fmt.Sprintf("%d B", n)
	}
}

// count formats a large number with a decimal unit.
func count(n int64) string {
	switch v := float64(n); {
	case n >= 1e9:
		return sig(v/1e9, 3) + " G"
	case n >= 1e6:
		return sig(v/1e6, 3) + " M"
	case n >= 1e4:
		return sig(v/1e3, 3) + " k"
	default:
		return fmt.Sprint(n)
	}
}
