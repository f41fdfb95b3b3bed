package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// bar is a progress line on standard error: share, rate and time left. It
// shows itself only on a terminal and only when work takes over a second.
type bar struct {
	w       io.Writer
	label   string
	total   int
	start   time.Time
	last    time.Time
	visible bool
}

func (a *app) progress(label string, total int) *bar {
	b := &bar{w: a.stderr, label: label, total: total, start: time.Now()}
	if f, ok := a.stderr.(*os.File); ok {
		st, err := f.Stat()
		b.visible = err == nil && st.Mode()&os.ModeCharDevice != 0
	}
	return b
}

func (b *bar) set(done int) {
	now := time.Now()
	if !b.visible || now.Sub(b.start) < time.Second || now.Sub(b.last) < 100*time.Millisecond {
		return
	}
	b.last = now
	rate := float64(done) / now.Sub(b.start).Seconds()
	if b.total <= 0 || rate <= 0 {
		fmt.Fprintf(b.w, "\r%s %d, %.0f/s  ", b.label, done, rate)
		return
	}
	const width = 24
	full := min(width, width*done/b.total)
	left := time.Duration(float64(b.total-done)/rate) * time.Second
	fmt.Fprintf(b.w, "\r%s [%s%s] %d/%d, %.0f/s, %s left  ", b.label, strings.Repeat("=", full), strings.Repeat(" ", width-full), done, b.total, rate, left.Round(time.Second))
}

func (b *bar) done() {
	if b.visible && !b.last.IsZero() {
		fmt.Fprintf(b.w, "\r%s\r", strings.Repeat(" ", 79))
	}
}
