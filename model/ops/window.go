package ops

import (
	"github.com/triune-sim/triune/model"
)

// window is the geometry of a sliding window over the spatial axes of a
// convolution or a pooling operator.
type window struct {
	in, kernel, stride, dilation []int
	begin, end                   []int // padding; resolved from auto_pad
	out                          []int // -1 where the input is unknown
}

// newWindow reads strides, dilations, pads, auto_pad and ceil_mode. in holds
// the spatial dimensions of the input.
func newWindow(a model.Attrs, in, kernel []int) window {
	r := len(in)
	w := window{in: in, kernel: kernel}
	list := func(key string, n, def int) []int {
		v := a.Ints(key, nil)
		if v == nil {
			v = make([]int, n)
			for i := range v {
				v[i] = def
			}
		}
		if len(v) != n {
			failf("attribute %s has %d values, wants %d", key, len(v), n)
		}
		return v
	}
	if len(kernel) != r {
		failf("the kernel %v has %d axes, the input %d", kernel, len(kernel), r)
	}
	w.stride, w.dilation = list("strides", r, 1), list("dilations", r, 1)
	for i := range r {
		if kernel[i] < 1 || w.stride[i] < 1 || w.dilation[i] < 1 {
			failf("kernel %v, strides %v and dilations %v must be positive", kernel, w.stride, w.dilation)
		}
		if !mulFits(kernel[i], w.dilation[i]) || kernel[i]*w.dilation[i] > 1<<30 {
			failf("kernel %v with dilations %v is too large", kernel, w.dilation)
		}
	}
	pads := list("pads", 2*r, 0)
	w.begin, w.end = append([]int{}, pads[:r]...), append([]int{}, pads[r:]...)
	w.out = make([]int, r)
	auto := a.String("auto_pad", "NOTSET")
	ceil := a.Int("ceil_mode", 0) != 0
	for i := range r {
		if w.begin[i] < -1<<30 || w.end[i] < -1<<30 || w.begin[i] > 1<<30 || w.end[i] > 1<<30 {
			failf("pads %v are out of range", pads)
		}
		span := (kernel[i]-1)*w.dilation[i] + 1
		if auto == "VALID" {
			w.begin[i], w.end[i] = 0, 0
		}
		if in[i] < 0 {
			w.out[i] = -1
			continue
		}
		switch auto {
		case "NOTSET", "", "VALID":
		case "SAME_UPPER", "SAME_LOWER":
			out := (in[i] + w.stride[i] - 1) / w.stride[i]
			total := max(0, (out-1)*w.stride[i]+span-in[i])
			w.begin[i] = total / 2
			if auto == "SAME_LOWER" {
				w.begin[i] = (total + 1) / 2
			}
			w.end[i] = total - w.begin[i]
			w.out[i] = out
			continue
		default:
			failf("unknown auto_pad %q", auto)
		}
		free := in[i] + w.begin[i] + w.end[i] - span
		if free < 0 {
			failf("the window of %d (kernel %d, dilation %d) is larger than the padded input %d on spatial axis %d", span, kernel[i], w.dilation[i], in[i]+w.begin[i]+w.end[i], i)
		}
		w.out[i] = free/w.stride[i] + 1
		if ceil {
			w.out[i] = (free+w.stride[i]-1)/w.stride[i] + 1
			// A window that starts in the end padding does not count.
			if (w.out[i]-1)*w.stride[i] >= in[i]+w.begin[i] {
				w.out[i]--
			}
		}
	}
	return w
}

// taps returns, for each output position and each kernel position, the flat
// index into the spatial input, or -1 in the padding; row-major over outputs
// then taps. from and to bound the output positions.
func (w *window) taps(from, to int) []int32 {
	r := len(w.in)
	k := prod(w.kernel)
	out := make([]int32, (to-from)*k)
	is, os := strides(w.in), strides(w.out)
	pos := make([]int, r)
	tap := make([]int, r)
	for p := from; p < to; p++ {
		rest := p
		for d := range r {
			pos[d] = rest/os[d]*w.stride[d] - w.begin[d]
			rest %= os[d]
		}
		row := out[(p-from)*k : (p-from+1)*k]
		for d := range tap {
			tap[d] = 0
		}
		for t := range row {
			off, ok := 0, true
			for d := range r {
				x := pos[d] + tap[d]*w.dilation[d]
				if x < 0 || x >= w.in[d] {
					ok = false
					break
				}
				off += x * is[d]
			}
			if ok {
				row[t] = int32(off)
			} else {
				row[t] = -1
			}
			for d := r - 1; d >= 0; d-- {
				tap[d]++
				if tap[d] < w.kernel[d] {
					break
				}
				tap[d] = 0
			}
		}
	}
	return out
}
