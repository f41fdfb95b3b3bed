package coreml

import (
	"math"
	"slices"

	"github.com/triune-sim/triune/model"
)

func init() {
	writes(func(e *emitter) {
		e.op("transpose", param{"x", e.in(0)}, param{"perm", e.n.Attrs.Ints("perm", reversed(len(e.shape(0))))})
	}, "Transpose")
	writes((*emitter).reshape, "Reshape")
	writes(func(e *emitter) { e.op("reshape", param{"x", e.in(0)}, param{"shape", []int(e.n.Out(0).Shape)}) }, "Flatten")
	writes(func(e *emitter) {
		axes := e.ints(1)
		if axes == nil {
			for i, d := range e.shape(0) {
				if d == 1 {
					axes = append(axes, i)
				}
			}
		}
		if len(axes) == 0 {
			e.op("identity", param{"x", e.in(0)})
			return
		}
		e.op("squeeze", param{"x", e.in(0)}, param{"axes", axes})
	}, "Squeeze")
	writes(func(e *emitter) { e.op("expand_dims", param{"x", e.in(0)}, param{"axes", e.ints(1)}) }, "Unsqueeze")
	writes(func(e *emitter) {
		var vs []ref
		for i := range e.n.Inputs {
			vs = append(vs, e.in(i))
		}
		e.op("concat", param{"values", vs}, param{"axis", e.n.Attrs.Int("axis", 0)}, param{"interleave", false})
	}, "Concat")
	writes(func(e *emitter) {
		a := axis(e.n.Attrs.Int("axis", 0), len(e.shape(0)))
		sizes := make([]int, len(e.n.Outputs))
		for i, v := range e.n.Outputs {
			if v == nil {
				failf("output %d is missing", i)
			}
			sizes[i] = v.Shape[a]
		}
		e.opN("split", len(sizes), param{"x", e.in(0)}, param{"axis", a}, param{"split_sizes", sizes})
	}, "Split")
	writes((*emitter).slice, "Slice")
	writes((*emitter).pad, "Pad")
	writes(func(e *emitter) { e.op("tile", param{"x", e.in(0)}, param{"reps", e.ints(1)}) }, "Tile")
	writes((*emitter).expand, "Expand")
	writes(func(e *emitter) {
		b := e.n.Attrs.Int("blocksize", 1)
		if e.n.Attrs.String("mode", "DCR") == "CRD" {
			e.op("pixel_shuffle", param{"x", e.in(0)}, param{"upscale_factor", b})
			return
		}
		e.op("depth_to_space", param{"x", e.in(0)}, param{"block_size", b})
	}, "DepthToSpace")
	writes(func(e *emitter) {
		e.op("space_to_depth", param{"x", e.in(0)}, param{"block_size", e.n.Attrs.Int("blocksize", 1)})
	}, "SpaceToDepth")
	writes(func(e *emitter) {
		r := len(e.shape(0))
		bound := func(key string, def int) int {
			n := e.n.Attrs.Int(key, def)
			if n < 0 {
				n += r
			}
			return max(0, min(n, r))
		}
		from, to := bound("start", 0), bound("end", r)
		if from == 0 && to == r {
			e.op("shape", param{"x", e.in(0)})
			return
		}
		if from >= to {
			failf("an empty part of the shape")
		}
		all := e.mid("shape", model.Int32, model.Shape{r}, param{"x", e.in(0)})
		e.op("slice_by_index", param{"x", all}, param{"begin", []int{from}}, param{"end", []int{to}})
	}, "Shape")
	writes(func(e *emitter) {
		a := axis(e.n.Attrs.Int("axis", 0), len(e.shape(0)))
		e.op("gather", param{"x", e.in(0)}, param{"indices", e.in(1)}, param{"axis", a})
	}, "Gather")
	writes(func(e *emitter) {
		e.op("gather_along_axis", param{"x", e.in(0)}, param{"indices", e.in(1)}, param{"axis", axis(e.n.Attrs.Int("axis", 0), len(e.shape(0)))})
	}, "GatherElements")
	writes(func(e *emitter) {
		p := []param{{"x", e.in(0)}, {"indices", e.in(1)}}
		if b := e.n.Attrs.Int("batch_dims", 0); b != 0 {
			p = append(p, param{"batch_dims", b})
		}
		e.op("gather_nd", p...)
	}, "GatherND")
	writes(func(e *emitter) {
		e.op("scatter_nd", param{"data", e.in(0)}, param{"indices", e.in(1)}, param{"updates", e.in(2)}, param{"mode", e.mode()})
	}, "ScatterND")
	writes(func(e *emitter) {
		e.op("scatter_along_axis", param{"data", e.in(0)}, param{"indices", e.in(1)}, param{"updates", e.in(2)},
			param{"axis", axis(e.n.Attrs.Int("axis", 0), len(e.shape(0)))}, param{"mode", e.mode()})
	}, "ScatterElements")
	writes(func(e *emitter) {
		k := e.ints(1)
		if len(k) != 1 {
			failf("k of shape %v", e.shape(1))
		}
		e.opN("topk", 2, param{"x", e.in(0)}, param{"k", k[0]}, param{"axis", axis(e.n.Attrs.Int("axis", -1), len(e.shape(0)))}, param{"ascending", e.n.Attrs.Int("largest", 1) == 0})
	}, "TopK")
	writes(func(e *emitter) {
		a := e.ints(1)
		if len(a) != 1 {
			failf("axis of shape %v", e.shape(1))
		}
		e.op("cumsum", param{"x", e.in(0)}, param{"axis", axis(a[0], len(e.shape(0)))}, param{"exclusive", e.n.Attrs.Int("exclusive", 0) != 0}, param{"reverse", e.n.Attrs.Int("reverse", 0) != 0})
	}, "CumSum")
	writes((*emitter).oneHot, "OneHot")
	writes(func(e *emitter) {
		k := 0
		if t := e.static(1); t != nil {
			k = int(t.IntAt(0))
		}
		lower, upper := -1, -1
		if e.n.Attrs.Int("upper", 1) != 0 {
			if lower = -k; k > 0 {
				failf("an upper triangle above the diagonal (k = %d)", k)
			}
		} else if upper = k; k < 0 {
			failf("a lower triangle below the diagonal (k = %d)", k)
		}
		e.op("band_part", param{"x", e.in(0)}, param{"lower", lower}, param{"upper", upper})
	}, "Trilu")
	writes(func(e *emitter) {
		e.op("reverse_sequence", param{"x", e.in(0)}, param{"lengths", e.in(1)}, param{"seq_axis", e.n.Attrs.Int("time_axis", 0)}, param{"batch_axis", e.n.Attrs.Int("batch_axis", 1)})
	}, "ReverseSequence")
	writes(func(e *emitter) {
		e.op("range_1d", param{"start", e.in(0)}, param{"end", e.in(1)}, param{"step", e.in(2)})
	}, "Range")
	writes((*emitter).resize, "Resize")
	writes((*emitter).gridSample, "GridSample")
	writes((*emitter).cropResize, "CropResize")
	writes((*emitter).boxSuppression, "BoxSuppression")
	writes((*emitter).bernoulli, "Bernoulli")
	writes((*emitter).multinomial, "Multinomial")
	writes(func(e *emitter) { e.random("random_normal", "mean", 0, "stddev", "scale", 1) }, "RandomNormal")
	writes(func(e *emitter) { e.random("random_uniform", "low", 0, "high", "high", 1) }, "RandomUniform")
	writes(func(e *emitter) { e.recurrent("lstm", []int{0, 2, 1, 3}) }, "LSTM")
	writes(func(e *emitter) { e.recurrent("gru", []int{1, 2, 0}) }, "GRU")
	writes(func(e *emitter) { e.recurrent("rnn", []int{0}) }, "RNN")
	writes(func(e *emitter) {
		// MIL lists the indices by row.
		v := e.n.Out(0)
		if !v.Shape.Known() {
			failf("a number of elements that depends on data")
		}
		y := e.mid("non_zero", model.Int32, model.Shape{v.Shape[1], v.Shape[0]}, param{"x", e.in(0)})
		e.op("transpose", param{"x", y}, param{"perm", []int{1, 0}})
	}, "NonZero")
	writes((*emitter).fill, "ConstantOfShape")
}

func reversed(n int) []int {
	s := seq(0, n)
	slices.Reverse(s)
	return s
}

func (e *emitter) reshape() {
	if e.n.Out(0).Shape.Elems() == 0 {
		failf("no elements: %v (a 0 in MIL's shape keeps a dimension)", e.n.Out(0).Shape)
	}
	s := e.n.In(1)
	if s.Const == nil {
		if out := e.n.Out(0).Shape; !out.Known() {
			e.op("reshape", param{"x", e.in(0)}, param{"shape", e.in(1)})
			return
		}
	}
	e.op("reshape", param{"x", e.in(0)}, param{"shape", []int(e.n.Out(0).Shape)})
}

func (e *emitter) slice() {
	s := e.shape(0)
	r := len(s)
	axes := e.ints(3)
	steps := e.ints(4)
	if e.n.In(1).Const == nil || e.n.In(2).Const == nil {
		// Bounds that depend on data: MIL wants them for every axis.
		if axes == nil {
			axes = seq(0, r)
		}
		if !slices.Equal(axes, seq(0, r)) || len(e.shape(1)) != 1 || e.shape(1)[0] != r {
			failf("bounds that depend on data for axes %v of %d", axes, r)
		}
		p := []param{{"x", e.in(0)}, {"begin", e.in(1)}, {"end", e.in(2)}}
		if steps != nil {
			p = append(p, param{"stride", steps})
		}
		e.op("slice_by_index", p...)
		return
	}
	starts, ends := e.ints(1), e.ints(2)
	if axes == nil {
		axes = seq(0, len(starts))
	}
	if steps == nil {
		steps = slices.Repeat([]int{1}, len(starts))
	}
	begin, end, stride := make([]int, r), slices.Clone([]int(s)), slices.Repeat([]int{1}, r)
	bm, em := make([]bool, r), make([]bool, r)
	for i := range r {
		bm[i], em[i] = true, true
	}
	strided := false
	for i, a := range axes {
		a = axis(a, r)
		lo, hi := starts[i], ends[i]
		stride[a] = steps[i]
		strided = strided || steps[i] != 1
		if steps[i] > 0 {
			bm[a], em[a] = lo <= -s[a] || lo == 0, hi >= s[a]
		} else {
			bm[a], em[a] = lo == -1 || lo >= s[a]-1, hi < -s[a]
		}
		begin[a], end[a] = lo, hi
		if bm[a] {
			begin[a] = 0
		}
		if em[a] {
			end[a] = s[a]
		}
		if steps[i] > 0 && lo > s[a] || steps[i] == 0 {
			failf("start %d, step %d on an axis of %d", lo, steps[i], s[a])
		}
	}
	p := []param{{"x", e.in(0)}, {"begin", begin}, {"end", end}, {"end_mask", em}}
	if strided {
		p = append(p, param{"stride", stride})
	}
	if slices.ContainsFunc(stride, func(n int) bool { return n < 0 }) {
		p = append(p, param{"begin_mask", bm}) // from the end; else a begin of 0 says it
	}
	e.op("slice_by_index", p...)
}

func (e *emitter) pad() {
	s := e.shape(0)
	r := len(s)
	p := e.ints(1)
	axes := e.ints(3)
	if axes == nil {
		axes = seq(0, r)
	}
	if len(p) != 2*len(axes) {
		failf("pads %v for axes %v", p, axes)
	}
	out := make([]int, 2*r)
	for i, a := range axes {
		a = axis(a, r)
		out[2*a], out[2*a+1] = p[i], p[len(axes)+i]
	}
	for _, v := range out {
		if v < 0 {
			failf("negative pads %v", p)
		}
	}
	mode, ok := map[string]string{"constant": "constant", "reflect": "reflect", "edge": "replicate"}[e.n.Attrs.String("mode", "constant")]
	if !ok {
		failf("mode %s", quote(e.n.Attrs.String("mode", "")))
	}
	v := 0.0
	if t := e.static(2); t != nil {
		v = numberAt(t, 0)
	}
	var val any = e.num(v)
	if !e.dtype(0).IsFloat() {
		val = int(v)
	}
	// reflect and replicate take the last two axes only.
	if mode != "constant" {
		for i := 0; i < 2*(r-2); i++ {
			if out[i] != 0 {
				failf("mode %s with pads %v (only the last two axes)", quote(mode), p)
			}
		}
	}
	e.op("pad", param{"x", e.in(0)}, param{"pad", out}, param{"mode", mode}, param{"constant_val", val})
}

// expand repeats axes of one.
func (e *emitter) expand() {
	s, out := e.shape(0), e.n.Out(0).Shape
	x := e.in(0)
	if !out.Known() {
		failf("an output of unknown shape %v", out)
	}
	if len(s) < len(out) {
		s = append(model.Shape(slices.Repeat([]int{1}, len(out)-len(s))), s...)
		x = e.mid("reshape", e.dtype(0), s, param{"x", x}, param{"shape", []int(s)})
	}
	reps := make([]int, len(out))
	for i := range out {
		reps[i] = 1
		if s[i] != out[i] {
			reps[i] = out[i]
		}
	}
	e.op("tile", param{"x", x}, param{"reps", reps})
}

func (e *emitter) mode() string {
	m := e.n.Attrs.String("reduction", "none")
	if m == "none" {
		return "update"
	}
	return m
}

func (e *emitter) oneHot() {
	depth, vals := e.static(1), e.static(2)
	if depth == nil || depth.Len() != 1 || vals == nil || vals.Len() != 2 {
		failf("depth and values must be constants")
	}
	v := func(i int) any {
		if vals.DType.IsFloat() {
			return number{vals.At(i), vals.DType}
		}
		return int(numberAt(vals, i))
	}
	e.op("one_hot", param{"indices", e.in(0)}, param{"one_hot_vector_size", int(numberAt(depth, 0))}, param{"axis", e.n.Attrs.Int("axis", -1)}, param{"on_value", v(1)}, param{"off_value", v(0)})
}

func (e *emitter) resize() {
	s, out := e.shape(0), e.n.Out(0).Shape
	r := len(s)
	if r < 3 || !slices.Equal(s[:r-2], out[:r-2]) {
		failf("%v to %v (only the last two axes)", s, out)
	}
	a := e.n.Attrs
	h, w := out[r-2], out[r-1]
	// The factors that give this size: MIL takes floor(in * factor).
	factor := func(in, out int) (number, bool) {
		f := float32(out) / float32(in)
		for range 4 {
			if math.Floor(float64(f)*float64(in)) == float64(out) {
				return number{float64(f), model.Float32}, true
			}
			f = math.Nextafter32(f, math.MaxFloat32)
		}
		return number{}, false
	}
	fh, ok1 := factor(s[r-2], h)
	fw, ok2 := factor(s[r-1], w)
	if !ok1 || !ok2 {
		failf("no factor gives %v from %v", out, s)
	}
	coord := a.String("coordinate_transformation_mode", "half_pixel")
	x := param{"x", e.in(0)}
	scales := []param{{"scale_factor_height", fh}, {"scale_factor_width", fw}}
	switch mode := a.String("mode", "nearest"); {
	case mode == "nearest" && coord == "asymmetric" && a.String("nearest_mode", "round_prefer_floor") == "floor":
		e.op("upsample_nearest_neighbor", append(scales, x)...)
	case mode == "nearest" && h%s[r-2] == 0 && w%s[r-1] == 0 && coord != "align_corners":
		// A whole factor: every mode repeats each element.
		e.op("upsample_nearest_neighbor", append(scales, x)...)
	case mode == "linear" && coord == "align_corners":
		e.op("upsample_bilinear", append(scales, x, param{"align_corners", true})...)
	case mode == "linear" && (coord == "half_pixel" || coord == "pytorch_half_pixel" && h > 1 && w > 1):
		if a.Int("antialias", 0) != 0 {
			failf("antialias")
		}
		e.op("upsample_bilinear", append(scales, x, param{"align_corners", false})...)
	case mode == "linear" && coord == "asymmetric":
		e.op("resize_bilinear", x, param{"target_size_height", h}, param{"target_size_width", w}, param{"sampling_mode", "DEFAULT"})
	default:
		failf("mode %s with %s coordinates", mode, coord)
	}
}

func (e *emitter) gridSample() {
	a := e.n.Attrs
	mode, ok := map[string]string{"linear": "bilinear", "bilinear": "bilinear", "nearest": "nearest"}[a.String("mode", "linear")]
	padding, ok2 := map[string]string{"zeros": "constant", "border": "border", "reflection": "reflection"}[a.String("padding_mode", "zeros")]
	if !ok || !ok2 || len(e.shape(0)) != 4 {
		failf("mode %s, padding_mode %s, x of shape %v", a.String("mode", ""), a.String("padding_mode", ""), e.shape(0))
	}
	e.op("resample", param{"x", e.in(0)}, param{"coordinates", e.in(1)}, param{"sampling_mode", mode}, param{"padding_mode", padding},
		param{"padding_value", e.num(0)}, param{"coordinates_mode", "normalized_minus_one_to_one"}, param{"align_corners", a.Int("align_corners", 0) != 0})
}

// cropResize writes the form of iOS17; clamping to the image, which is what
// iOS15 did, it cannot say.
func (e *emitter) cropResize() {
	a := e.n.Attrs
	e.x.need(IOS17, "node %q (CropResize)", e.n.Name)
	if a.Int("clamp", 0) != 0 {
		failf("points outside the image that take the nearest pixel (crop_resize of iOS15)")
	}
	p := []param{{"x", e.in(0)}, {"boxes", e.in(1)}}
	if e.has(2) {
		p = append(p, param{"box_indices", e.in(2)})
	}
	e.op("crop_resize", append(p, param{"target_height", a.Int("height", 1)}, param{"target_width", a.Int("width", 1)},
		param{"normalized_coordinates", a.Int("normalized", 0) != 0}, param{"spatial_scale", number{a.Float("spatial_scale", 1), model.Float32}},
		param{"box_coordinate_mode", a.String("box_coordinate_mode", "CORNERS_HEIGHT_FIRST")},
		param{"sampling_mode", a.String("sampling_mode", "DEFAULT")}, param{"pad_value", e.num(a.Float("pad_value", 0))})...)
}

func (e *emitter) boxSuppression() {
	a := e.n.Attrs
	e.opN("non_maximum_suppression", 4, param{"boxes", e.in(0)}, param{"scores", e.in(1)}, param{"iou_threshold", e.num(a.Float("iou_threshold", 0))},
		param{"score_threshold", e.num(a.Float("score_threshold", 0))}, param{"max_boxes", a.Int("max_boxes", 1)},
		param{"per_class_suppression", a.Int("per_class", 0) != 0})
}

// random writes a distribution of two parameters; ONNX's second one may have
// another name.
func (e *emitter) random(typ, first string, def float64, second, theirs string, def2 float64) {
	v, a := e.n.Out(0), e.n.Attrs
	if !v.Shape.Known() {
		failf("a shape of %v that depends on data", v.Shape)
	}
	e.op(typ, param{"shape", []int(v.Shape)}, param{first, number{a.Float(first, def), v.DType}}, param{second, number{a.Float(theirs, def2), v.DType}}, e.seed())
}

func (e *emitter) seed() param {
	if f, ok := e.n.Attrs["seed"].(float64); ok {
		return param{"seed", int(f)}
	}
	return param{"seed", e.n.Attrs.Int("seed", -1)}
}

// bernoulli: MIL has one probability for all elements.
func (e *emitter) bernoulli() {
	p, v := e.n.In(0), e.n.Out(0)
	if p.Const == nil || p.Const.Elems() < 1 || !v.DType.IsFloat() {
		failf("probabilities that are not constant, or %s numbers", v.DType)
	}
	t, err := p.Const.Value()
	try(err)
	for i := range t.Len() {
		if t.At(i) != t.At(0) {
			failf("a probability for each element (MIL has one for all)")
		}
	}
	e.op("random_bernoulli", param{"shape", []int(v.Shape)}, param{"prob", number{t.At(0), v.DType}}, e.seed())
}

func (e *emitter) multinomial() {
	if v := e.n.Out(0); v.DType != model.Int32 || !v.Shape.Known() {
		failf("numbers of type %s and shape %v", v.DType, v.Shape)
	}
	n := e.n.Attrs.Int("sample_size", 1)
	y := e.mid("random_categorical", e.dtype(0), e.n.Out(0).Shape, param{"x", e.in(0)}, param{"mode", "logits"}, param{"size", n}, e.seed())
	e.op("cast", param{"x", y}, param{"dtype", "int32"})
}

// fill writes a tensor of one value.
func (e *emitter) fill() {
	v := e.n.Out(0)
	t, _ := e.n.Attrs["value"].(*model.Tensor)
	if t == nil {
		t = model.NewTensor(model.Float32, 1)
	}
	if !v.Shape.Known() || t.Len() != 1 {
		failf("a shape of %v that depends on data", v.Shape)
	}
	var val any = number{numberAt(t, 0), t.DType}
	if !t.DType.IsFloat() {
		val = int(t.IntAt(0))
	}
	e.op("fill", param{"shape", []int(v.Shape)}, param{"value", val})
}

// recurrent writes an LSTM, GRU or RNN: weights without the direction axis and
// with gates in MIL's order.
func (e *emitter) recurrent(typ string, order []int) {
	a := e.n.Attrs
	h, gates := a.Int("hidden_size", 0), len(order)
	dir := a.String("direction", "forward")
	s, d := e.shape(0), e.dtype(0)
	if a.Int("layout", 0) != 0 || a.Int("input_forget", 0) != 0 || a.Float("clip", 0) != 0 || e.has(4) || h < 1 || len(s) != 3 {
		failf("%s, hidden size %d, with sequence lengths, clip, layout or coupled gates (only plain ones)", dir, h)
	}
	dirs := 1
	if dir == "bidirectional" {
		if typ != "lstm" {
			failf("a bidirectional %s (Core ML's is one-directional)", typ)
		}
		dirs = 2
	}
	matrix := func(i, way int) ref {
		w := e.n.In(i)
		if w.Const == nil || len(w.Shape) != 3 {
			failf("weights that are not constant")
		}
		if dirs == 1 {
			return e.x.constantAs(w, gateRows(unlead(w.Const), order, h))
		}
		v := &model.Value{Name: w.Name + []string{"", "_back"}[way]}
		return e.x.constantAs(v, gateRows(half(w.Const, way), order, h))
	}
	state := func(i int) ref {
		if !e.has(i) {
			return ref(e.x.static(e.base()+"_zero", model.NewTensor(d, s[1], dirs*h)))
		}
		v := e.n.In(i)
		if dirs == 2 { // [2, batch, H] to [batch, 2H]
			t := e.mid("transpose", d, model.Shape{s[1], 2, h}, param{"x", e.x.ref(v)}, param{"perm", []int{1, 0, 2}})
			return e.mid("reshape", d, model.Shape{s[1], 2 * h}, param{"x", t}, param{"shape", []int{s[1], 2 * h}})
		}
		if u := e.x.direct[v]; u != nil {
			return e.x.ref(u)
		}
		if v.Const != nil {
			return e.x.constantAs(v, unlead(v.Const))
		}
		return e.mid("squeeze", d, model.Shape{s[1], h}, param{"x", e.in(i)}, param{"axes", []int{0}})
	}
	p := []param{{"x", e.in(0)}, {"initial_h", state(5)}}
	keys := []string{"recurrent_activation", "activation"}
	suffixes := []string{"_seq", "_h"}
	switch typ {
	case "lstm":
		p = append(p, param{"initial_c", state(6)})
		keys = []string{"recurrent_activation", "cell_activation", "activation"}
		suffixes = append(suffixes, "_c")
	case "rnn":
		keys = keys[1:]
	}
	p = append(p, param{"weight_ih", matrix(1, 0)}, param{"weight_hh", matrix(2, 0)}, param{"direction", dir}, param{"output_sequence", true})
	if dirs == 2 {
		p = append(p, param{"weight_ih_back", matrix(1, 1)}, param{"weight_hh_back", matrix(2, 1)})
	}
	if k := a.Float("cell_clip", 0); k > 0 {
		p = append(p, param{"clip", number{k, d}})
	}
	after := typ == "gru" && a.Int("linear_before_reset", 0) != 0
	if after {
		e.x.need(IOS18, "node %q (GRU with the reset after the product)", e.n.Name)
		p = append(p, param{"reset_after", true})
	}
	if b := e.n.In(3); b != nil {
		n := gates * h
		if b.Const == nil || b.Const.Elems() != int64(2*n*dirs) {
			failf("a bias of shape %v", b.Shape)
		}
		// The input's and the hidden state's bias: one sum for MIL, but where
		// the reset comes between.
		part := func(way int, f func(t *model.Tensor, i int) float64) *model.Const {
			return gateRows(model.NewLazy(b.DType, model.Shape{n}, func() (*model.Tensor, error) {
				t, err := b.Const.Value()
				if err != nil {
					return nil, err
				}
				out := model.NewTensor(b.DType, n)
				for i := range n {
					out.Set(i, f(t, 2*n*way+i))
				}
				return out, nil
			}), order, h)
		}
		sum := func(t *model.Tensor, i int) float64 { return t.At(i) + t.At(n+i) }
		switch {
		case after:
			in := &model.Value{Name: b.Name + "_input"}
			p = append(p, param{"bias", e.x.constantAs(b, part(0, func(t *model.Tensor, i int) float64 { return t.At(n + i) }))},
				param{"input_bias", e.x.constantAs(in, part(0, func(t *model.Tensor, i int) float64 { return t.At(i) }))})
		case dirs == 2:
			back := &model.Value{Name: b.Name + "_back"}
			p = append(p, param{"bias", e.x.constantAs(b, part(0, sum))}, param{"bias_back", e.x.constantAs(back, part(1, sum))})
		default:
			p = append(p, param{"bias", e.x.constantAs(b, part(0, sum))})
		}
	}
	if typ == "lstm" && e.has(7) {
		if dirs == 2 {
			failf("a bidirectional LSTM with peepholes")
		}
		w := e.n.In(7)
		p = append(p, param{"peephole", e.x.constantAs(w, gateRows(unlead(w.Const), []int{0, 2, 1}, h))})
	}
	acts, _ := a["activations"].([]string)
	for i, key := range keys {
		if i < len(acts) {
			m, ok := map[string]string{"Sigmoid": "sigmoid", "Tanh": "tanh", "Relu": "relu", "HardSigmoid": "sigmoid_hard", "Softsign": "softsign", "Softplus": "softplus"}[acts[i]]
			if !ok {
				failf("activation %s", acts[i])
			}
			p = append(p, param{key, m})
		}
	}
	// Outputs: the sequence, and the last states; ONNX has a direction axis.
	var outs []named
	for i, suffix := range suffixes {
		o := named{typ: tensorType(d, model.Shape{s[1], dirs * h})}
		if i == 0 {
			o.typ.shape = model.Shape{s[0], s[1], dirs * h}
		}
		if v := e.n.Out(i); v != nil && e.x.direct[v] != nil {
			o.name = e.x.name(e.x.direct[v])
			e.x.written[e.x.direct[v]] = true
		} else {
			o.name = e.x.fresh(e.base() + suffix)
		}
		outs = append(outs, o)
	}
	e.x.add(typ, e.title(), outs, p...)
	for i, v := range e.n.Outputs {
		if v == nil {
			continue
		}
		if e.x.direct[v] != nil {
			e.x.written[v] = true
			continue
		}
		src := ref(outs[i].name)
		if dirs == 2 { // [..., batch, 2H] to [..., 2, batch, H]
			split, perm := model.Shape{s[1], 2, h}, []int{1, 0, 2}
			if i == 0 {
				split, perm = model.Shape{s[0], s[1], 2, h}, []int{0, 2, 1, 3}
			}
			r := e.mid("reshape", d, split, param{"x", src}, param{"shape", []int(split)})
			e.x.add("transpose", e.x.name(v), []named{{e.x.name(v), e.x.typeOf(v)}}, param{"x", r}, param{"perm", perm})
			e.x.written[v] = true
			continue
		}
		if i == 0 && dir == "reverse" {
			// Back to the order of time.
			src = e.mid("reverse", d, outs[0].typ.shape, param{"x", src}, param{"axes", []int{0}})
		}
		e.x.add("expand_dims", e.x.name(v), []named{{e.x.name(v), e.x.typeOf(v)}}, param{"x", src}, param{"axes", []int{b2i(i == 0)}})
		e.x.written[v] = true
	}
}

// half is one direction's part of a constant of two, in plain values.
func half(k *model.Const, way int) *model.Const {
	shape := k.Shape[1:].Clone()
	return model.NewLazy(k.DType, shape, func() (*model.Tensor, error) {
		t, err := k.Value()
		if err != nil {
			return nil, err
		}
		out := model.NewTensor(k.DType, shape...)
		copy(out.Data, t.Data[way*len(out.Data):])
		return out, nil
	})
}

// unlead drops the leading axis of one of a constant, whatever its storage.
func unlead(k *model.Const) *model.Const {
	drop := func(p *model.Const) *model.Const {
		if p == nil || len(p.Shape) == 0 {
			return p
		}
		return unlead(p)
	}
	out := &model.Const{DType: k.DType, Shape: k.Shape[1:].Clone(), Storage: k.Storage}
	switch s := k.Storage.(type) {
	case *model.Affine:
		out.Storage = &model.Affine{Codes: unlead(s.Codes), Scale: drop(s.Scale), Zero: drop(s.Zero)}
	case *model.Lookup:
		out.Storage = &model.Lookup{Indices: unlead(s.Indices), Table: unlead(s.Table), VectorAxis: s.VectorAxis - 1}
	case *model.Sparse:
		out.Storage = &model.Sparse{Mask: unlead(s.Mask), Values: s.Values}
	}
	return out
}
