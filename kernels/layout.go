package kernels

import "unsafe"

// Block is the number of channels side by side in the C16 layout.
const Block = 16

// C16Len returns the length of a C16 slice of n images of c channels, h x w.
func C16Len(n, c, h, w int) int { return n * ceilDiv(c, Block) * h * w * Block }

// PackC16 copies plain [n][c][h][w] float32 to C16, writing zero to the
// channel tail.
func PackC16(ctx *Ctx, dst, src []float32, n, c, h, w int) { packC16(ctx, dst, src, n, c, h*w, 0) }

// UnpackC16 copies C16 float32 to plain [n][c][h][w].
func UnpackC16(ctx *Ctx, dst, src []float32, n, c, h, w int) { unpackC16(ctx, dst, src, n, c, h*w) }

// PackC16U8 copies plain [n][c][h][w] bytes to C16, writing fill (the zero
// point, as a raw byte) to the channel tail.
func PackC16U8(ctx *Ctx, dst, src []uint8, n, c, h, w int, fill uint8) {
	packC16(ctx, dst, src, n, c, h*w, fill)
}

// UnpackC16U8 copies C16 bytes to plain [n][c][h][w].
func UnpackC16U8(ctx *Ctx, dst, src []uint8, n, c, h, w int) { unpackC16(ctx, dst, src, n, c, h*w) }

// PackNHWC copies plain [n][h][w][c] float32 to C16, writing zero to the channel
// tail.
func PackNHWC(ctx *Ctx, dst, src []float32, n, c, h, w int) { packNHWC(ctx, dst, src, n, c, h*w, 0) }

// PackNHWCU8 copies plain [n][h][w][c] bytes to C16, writing fill to the channel
// tail.
func PackNHWCU8(ctx *Ctx, dst, src []uint8, n, c, h, w int, fill uint8) {
	packNHWC(ctx, dst, src, n, c, h*w, fill)
}

func packNHWC[T float32 | uint8](ctx *Ctx, dst, src []T, n, c, hw int, fill T) {
	need("PackNHWC dst", len(dst), C16Len(n, c, 1, hw))
	need("PackNHWC src", len(src), n*c*hw)
	runNHWC(ctx, false, dst, src, n, c, hw, fill)
}

// UnpackNHWC copies C16 to plain [n][h][w][c].
func UnpackNHWC[T float32 | uint8](ctx *Ctx, dst, src []T, n, c, h, w int) {
	need("UnpackNHWC dst", len(dst), n*c*h*w)
	need("UnpackNHWC src", len(src), C16Len(n, c, h, w))
	var zero T
	runNHWC(ctx, true, dst, src, n, c, h*w, zero)
}

// nhwcPixels is the number of pixels of a piece: their channels stay in a
// first-level cache while each block of them is walked.
const nhwcPixels = 32

func runNHWC[T float32 | uint8](ctx *Ctx, unpack bool, dst, src []T, n, c, hw int, fill T) {
	if n < 1 || hw < 1 || c < 1 {
		return
	}
	t := &ctx.layout
	*t = newLayoutTask(unpack, dst, src, c, hw, fill)
	t.nhwc, t.pieces = true, ceilDiv(hw, nhwcPixels)
	ctx.pool.Run(n*t.pieces, t)
	*t = layoutTask{}
}

// moveNHWC moves piece i of an image with its channels innermost.
func moveNHWC[T float32 | uint8](t *layoutTask, dst, src []T, i int, fill T) {
	img, p0 := i/t.pieces, i%t.pieces*nhwcPixels
	p1 := min(p0+nhwcPixels, t.hw)
	plain, blocked := dst, src
	if !t.unpack {
		plain, blocked = src, dst
	}
	plain = plain[img*t.hw*t.c:][:t.hw*t.c]
	blocked = blocked[img*t.cb*t.hw*Block:][:t.cb*t.hw*Block]
	for b := range t.cb {
		v := blocked[(b*t.hw+p0)*Block : (b*t.hw+p1)*Block]
		at := p0*t.c + b*Block
		if valid := t.c - b*Block; valid < Block {
			for ; len(v) > 0; v, at = v[Block:], at+t.c {
				if t.unpack {
					copy(plain[at:at+valid], v)
					continue
				}
				copy(v, plain[at:at+valid])
				for j := valid; j < Block; j++ {
					v[j] = fill
				}
			}
			continue
		}
		if t.unpack {
			for ; len(v) > 0; v, at = v[Block:], at+t.c {
				*(*[Block]T)(plain[at:]) = *(*[Block]T)(v)
			}
		} else {
			for ; len(v) > 0; v, at = v[Block:], at+t.c {
				*(*[Block]T)(v) = *(*[Block]T)(plain[at:])
			}
		}
	}
}

// layoutTask is a change of layout of float32 or bytes.
type layoutTask struct {
	unpack   bool
	nhwc     bool // the plain side has its channels innermost
	pieces   int  // of an image, with nhwc
	d32, s32 []float32
	d8, s8   []uint8
	c, cb    int
	hw       int
	fill     uint8
}

func (t *layoutTask) RunPiece(i, _ int) {
	switch {
	case t.nhwc && t.d32 != nil:
		moveNHWC(t, t.d32, t.s32, i, 0)
	case t.nhwc:
		moveNHWC(t, t.d8, t.s8, i, t.fill)
	case t.d32 != nil && t.unpack:
		unpackPlane(t.d32, t.s32, i, t.c, t.cb, t.hw)
	case t.d32 != nil:
		packPlane(t.d32, t.s32, i, t.c, t.cb, t.hw, 0)
	case t.unpack:
		unpackPlane(t.d8, t.s8, i, t.c, t.cb, t.hw)
	default:
		packPlane(t.d8, t.s8, i, t.c, t.cb, t.hw, t.fill)
	}
}

func packC16[T float32 | uint8](ctx *Ctx, dst, src []T, n, c, hw int, fill T) {
	cb := ceilDiv(c, Block)
	need("PackC16 dst", len(dst), n*cb*hw*Block)
	need("PackC16 src", len(src), n*c*hw)
	if hw == 1 && c%Block == 0 {
		copy(dst[:n*c], src)
		return
	}
	runLayout(ctx, false, dst, src, n*cb, c, hw, fill)
}

func unpackC16[T float32 | uint8](ctx *Ctx, dst, src []T, n, c, hw int) {
	cb := ceilDiv(c, Block)
	need("UnpackC16 src", len(src), n*cb*hw*Block)
	need("UnpackC16 dst", len(dst), n*c*hw)
	if hw == 1 && c%Block == 0 {
		copy(dst[:n*c], src)
		return
	}
	var zero T
	runLayout(ctx, true, dst, src, n*cb, c, hw, zero)
}

func runLayout[T float32 | uint8](ctx *Ctx, unpack bool, dst, src []T, planes, c, hw int, fill T) {
	if planes < 1 || hw < 1 {
		return
	}
	t := &ctx.layout
	*t = newLayoutTask(unpack, dst, src, c, hw, fill)
	ctx.pool.Run(planes, t)
	*t = layoutTask{}
}

func newLayoutTask[T float32 | uint8](unpack bool, dst, src []T, c, hw int, fill T) layoutTask {
	t := layoutTask{unpack: unpack, c: c, cb: ceilDiv(c, Block), hw: hw}
	d, s := unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(src))
	if unsafe.Sizeof(fill) == 4 {
		t.d32, t.s32 = unsafe.Slice((*float32)(d), len(dst)), unsafe.Slice((*float32)(s), len(src))
	} else {
		t.d8, t.s8, t.fill = unsafe.Slice((*uint8)(d), len(dst)), unsafe.Slice((*uint8)(s), len(src)), uint8(fill)
	}
	return t
}

// packPlane writes block plane i of the C16 layout.
func packPlane[T float32 | uint8](dst, src []T, i, c, cb, hw int, fill T) {
	img, b := i/cb, i%cb
	d := dst[i*hw*Block : (i+1)*hw*Block]
	valid := min(Block, c-b*Block)
	s := src[(img*c+b*Block)*hw:][:valid*hw]
	for p := 0; p < hw; p++ {
		v := (*[Block]T)(d[p*Block:])
		if valid == Block {
			for j := range v {
				v[j] = s[j*hw+p]
			}
			continue
		}
		for j := range v {
			if j < valid {
				v[j] = s[j*hw+p]
			} else {
				v[j] = fill
			}
		}
	}
}

// unpackPlane reads block plane i of the C16 layout.
func unpackPlane[T float32 | uint8](dst, src []T, i, c, cb, hw int) {
	img, b := i/cb, i%cb
	s := src[i*hw*Block : (i+1)*hw*Block]
	valid := min(Block, c-b*Block)
	d := dst[(img*c+b*Block)*hw:][:valid*hw]
	for p := 0; p < hw; p++ {
		v := (*[Block]T)(s[p*Block:])
		for j := 0; j < valid; j++ {
			d[j*hw+p] = v[j]
		}
	}
}

// CopyChannelsC16 copies c channels of src (a C16 tensor of srcC channels,
// from channel srcAt on) into dst (of dstC channels, from channel dstAt on);
// both are h x w with n images. When both offsets are multiples of 16 whole
// blocks are copied. It is the building block of concatenation, slicing and
// splitting along channels.
func CopyChannelsC16[T float32 | uint8](ctx *Ctx, dst []T, dstC, dstAt int, src []T, srcC, srcAt, c, n, h, w int) {
	hw := h * w
	db, sb := ceilDiv(dstC, Block), ceilDiv(srcC, Block)
	need("CopyChannelsC16 dst", len(dst), n*db*hw*Block)
	need("CopyChannelsC16 src", len(src), n*sb*hw*Block)
	if dstAt < 0 || srcAt < 0 || c < 0 || dstAt+c > dstC || srcAt+c > srcC {
		panic("kernels: CopyChannelsC16: channel range out of bounds")
	}
	if dstAt%Block == 0 && srcAt%Block == 0 && (c%Block == 0 || dstAt+c == dstC) {
		blocks := ceilDiv(c, Block)
		for i := 0; i < n; i++ {
			d := (i*db + dstAt/Block) * hw * Block
			s := (i*sb + srcAt/Block) * hw * Block
			copy(dst[d:d+blocks*hw*Block], src[s:s+blocks*hw*Block])
		}
		return
	}
	// Runs of channels that lie in one block on both sides.
	for img := 0; img < n; img++ {
		for k := 0; k < c; {
			dc, sc := dstAt+k, srcAt+k
			run := min(Block-dc%Block, Block-sc%Block, c-k)
			d := dst[(img*db+dc/Block)*hw*Block+dc%Block:]
			s := src[(img*sb+sc/Block)*hw*Block+sc%Block:]
			for p := 0; p < hw*Block; p += Block {
				a, b := d[p:p+run], s[p:p+run]
				for j := range a {
					a[j] = b[j]
				}
			}
			k += run
		}
	}
}
