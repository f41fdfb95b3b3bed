package kernels

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

func packC16[T float32 | uint8](ctx *Ctx, dst, src []T, n, c, hw int, fill T) {
	cb := ceilDiv(c, Block)
	need("PackC16 dst", len(dst), n*cb*hw*Block)
	need("PackC16 src", len(src), n*c*hw)
	ctx.pool.For(n*cb, func(i int) {
		img, b := i/cb, i%cb
		d := dst[i*hw*Block : (i+1)*hw*Block]
		for j := 0; j < Block; j++ {
			ch := b*Block + j
			if ch >= c {
				for p := j; p < len(d); p += Block {
					d[p] = fill
				}
				continue
			}
			s := src[(img*c+ch)*hw : (img*c+ch+1)*hw]
			for p, v := range s {
				d[p*Block+j] = v
			}
		}
	})
}

func unpackC16[T float32 | uint8](ctx *Ctx, dst, src []T, n, c, hw int) {
	cb := ceilDiv(c, Block)
	need("UnpackC16 src", len(src), n*cb*hw*Block)
	need("UnpackC16 dst", len(dst), n*c*hw)
	ctx.pool.For(n*c, func(i int) {
		img, ch := i/c, i%c
		s := src[((img*cb+ch/Block)*hw)*Block+ch%Block:]
		d := dst[i*hw : (i+1)*hw]
		for p := range d {
			d[p] = s[p*Block]
		}
	})
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
		ctx.pool.For(n*blocks, func(i int) {
			img, b := i/blocks, i%blocks
			d := (img*db + dstAt/Block + b) * hw * Block
			s := (img*sb + srcAt/Block + b) * hw * Block
			copy(dst[d:d+hw*Block], src[s:s+hw*Block])
		})
		return
	}
	for img := 0; img < n; img++ {
		for k := 0; k < c; k++ {
			dc, sc := dstAt+k, srcAt+k
			d := dst[(img*db+dc/Block)*hw*Block+dc%Block:]
			s := src[(img*sb+sc/Block)*hw*Block+sc%Block:]
			for p := 0; p < hw; p++ {
				d[p*Block] = s[p*Block]
			}
		}
	}
}
