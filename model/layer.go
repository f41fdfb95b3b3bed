package model

// Network is a lowered graph: layers in topological order and the tensors
// between them. It is read-only after [Lower] and safe for concurrent use.
type Network struct {
	Graph  *Graph
	Layers []*Layer
	// Edges are the activation tensors between layers, graph inputs first.
	Edges []*Edge
}

// Edge is an activation tensor that crosses layers: a graph input, or a
// layer's output.
type Edge struct {
	Index     int
	Value     *Value
	Producer  int   // index of the layer that writes it; -1 for a graph input
	Consumers []int // indices of the layers that read it, ascending, unique
	Output    bool  // the edge is a graph output

	Elems int64
	// LastAxis is the length of the innermost dimension (1 for scalars): the
	// Neural Engine pads it to 64 bytes.
	LastAxis int
	// Quantized is true when the tensor is carried as int8 or uint8 codes with
	// a scale: the output of a quantize operator, or an 8-bit input of the graph
	// that is dequantized wherever it is read.
	Quantized bool
	// Integer is true for index and mask tensors (int32, int64, bool), which
	// are not activations.
	Integer bool
}

// Kind is the family of a layer, by which cost models and support rules
// distinguish.
type Kind uint8

// The kinds of layers.
const (
	KindOther         Kind = iota
	KindConv               // dense or grouped convolution
	KindDepthwise          // convolution with one input channel per group
	KindConvTranspose      //
	KindLinear             // Gemm or MatMul with a constant right operand
	KindMatMul             // product of two activations
	KindPool               // max, average, Lp pooling, global ones included
	KindElementwise        // binary and n-ary element-wise operators
	KindActivation         // unary element-wise operators
	KindSoftmax            // softmax, log-softmax, hardmax
	KindNorm               // layer, instance, group, RMS, LRN, batch norm that was not folded
	KindReduce             // reductions, arg-min and arg-max, cumulative sum
	KindMove               // transpose, concat, slice, split, pad, tile, depth-to-space, ...
	KindView               // reshape family: same bytes under another shape
	KindGather             // gather, scatter, one-hot, top-k, non-zero
	KindResize             // resize, upsample, grid sample
	KindQuantize           // a quantize, dequantize or cast operator that no layer absorbed
	KindRecurrent          // RNN, GRU, LSTM
	KindAttention          // fused scaled-dot-product attention
	KindControl            // If, Loop, Scan, sequence operators
	numKinds
)

var kindNames = [numKinds]string{"other", "conv", "depthwise", "conv_transpose", "linear", "matmul", "pool",
	"elementwise", "activation", "softmax", "norm", "reduce", "move", "view", "gather", "resize", "quantize",
	"recurrent", "attention", "control"}

// String returns the kind's name, for example "depthwise".
func (k Kind) String() string { return kindNames[k] }

// Granularity says what shares one scale or one table.
type Granularity uint8

// The granularities.
const (
	PerTensor  Granularity = iota
	PerChannel             // per output channel (or per group of them, for tables)
	PerBlock               // blocks along the input axis too
)

// String returns Core ML's word: per_tensor, per_channel or per_block.
func (g Granularity) String() string {
	return [...]string{"per_tensor", "per_channel", "per_block"}[g]
}

// Layer is one anchor operator and what is fused into it: the unit of
// placement, of cost and of execution.
type Layer struct {
	Index int
	Name  string // the anchor node's name
	Op    Op     // the anchor's operator
	Kind  Kind
	// Anchor is the node that gives the layer its name.
	Anchor *Node
	// Nodes are all nodes of the layer in execution order: dequantize nodes
	// of the inputs, the anchor, then the epilogue (activation, residual add,
	// quantize).
	Nodes []*Node
	// Fused lists the operators of the nodes other than the anchor.
	Fused []string

	Inputs  []int // edges read, in order of first use, unique
	Outputs []int // edges written
	Facts
}

// Facts is what a cost model and a support rule may know of a layer. It holds
// no values and no pointers, so that pricing touches one small record.
type Facts struct {
	MACs int64 // multiply-adds of the anchor
	// VectorOps is the number of element-wise operations: one per element and
	// operator for element-wise, pooling (times window), softmax (five per
	// element), norms and the fused epilogue.
	VectorOps int64

	// Convolution geometry (Conv, ConvTranspose, pooling; 1 where not
	// applicable). 1-D convolutions have InH = OutH = KH = 1; the depth axis
	// of 3-D ones multiplies Batch and KD.
	Batch, InC, OutC, InH, InW, OutH, OutW int
	KD, KH, KW, StrideH, StrideW           int
	DilH, DilW, Groups                     int
	Rank                                   int // highest rank of an activation tensor
	// Images is the first dimension that all activation tensors share, where
	// each has three or more: a batch, whose images do not depend on each
	// other. 1 where there is none.
	Images int

	// GEMM view: M rows, K reduction, N columns, Repeat independent products
	// (groups of a convolution, batch of a matmul). MACs = M*K*N*Repeat.
	M, K, N, Repeat int64

	InElems, OutElems int64 // activation elements read and written, summed over edges
	// QuantInElems and QuantOutElems are the parts carried as 8-bit codes.
	QuantInElems, QuantOutElems int64
	// IOElems is the part of both that crosses the graph's border: its inputs
	// and outputs.
	IOElems int64
	// TiledBytes is the part of both, in bytes (2 an element, 1 where carried as
	// codes), that a 1x1 convolution exchanges with the 1x1 convolution next to
	// it and nobody else: it can be handed over tile by tile.
	TiledBytes int64
	// ResidualElems is the part of InElems read by a fused residual add.
	ResidualElems int64
	// InPad64 and OutPad64 are the padding factors (>= 1) that aligning the
	// last axis to 64 bytes causes for fp16 tensors, averaged by elements.
	InPad64, OutPad64 float64

	// WeightElems counts the elements of weights (everything constant and
	// floating point that the layer reads, biases included).
	WeightElems int64
	// WeightBytes is their size as stored (codes, scales, tables, masks).
	WeightBytes int64
	// WeightReadBytes is what one inference reads of them: all of it, but only
	// the selected rows of an embedding table.
	WeightReadBytes int64
	// WeightDenseBytes is their size decompressed to the program's float type.
	WeightDenseBytes int64
	WeightForm       Form        // storage of the largest weight
	WeightBits       int         // bits per code of the largest weight (16 or 32 when dense)
	WeightGran       Granularity // of its scales or tables
	WeightBlock      int         // block length on the input axis; 0 unless per block
	WeightTables     int         // number of look-up tables; 0 unless a palette
	WeightSparsity   float64     // share of zeros stored as such, 0..1

	// QuantIn is true when every activation operand of the anchor is carried
	// as 8-bit codes; QuantWeight when its weight is int8 or uint8 affine (or
	// has an int8 table); QuantOut when the output is quantized.
	QuantIn, QuantWeight, QuantOut bool
	// FloatTail is true when the fused activation is one that the output stage
	// of an int8 kernel lacks (swish, gelu, ...): a quantized output then takes
	// a pass of its own.
	FloatTail bool
	// Float32 is true when the program types the layer fp32: the Neural
	// Engine then refuses it.
	Float32 bool
	// Integer is true when the layer works on integers or booleans only
	// (shape arithmetic, indices).
	Integer bool
	// Dynamic is true when a shape depends on values.
	Dynamic bool
	// Axis is the axis that softmax, reductions, norms and concat work on,
	// non-negative; -1 where it does not apply. LastAxis tells whether the
	// innermost axis is touched (transposed, reduced, split, reshaped).
	Axis     int
	LastAxis bool
}

// ReadShare is the part of the stored weights that one inference reads, 0 to 1.
func (f *Facts) ReadShare() float64 {
	if f.WeightBytes <= 0 {
		return 1
	}
	return min(1, float64(f.WeightReadBytes)/float64(f.WeightBytes))
}

// Int8 reports whether the layer can run as int8 x int8: a convolution, linear
// layer or matmul with every operand quantized.
func (f *Facts) Int8(k Kind) bool {
	switch k {
	case KindConv, KindDepthwise, KindConvTranspose, KindLinear:
		return f.QuantIn && f.QuantWeight
	case KindMatMul:
		return f.QuantIn
	}
	return false
}

// Winograd reports whether the shape admits Winograd's minimal filtering: a
// dense 3x3 convolution of stride 1 without dilation.
func (f *Facts) Winograd() bool {
	return f.KD == 1 && f.KH == 3 && f.KW == 3 && f.StrideH == 1 && f.StrideW == 1 && f.DilH == 1 && f.DilW == 1 && f.Groups == 1
}

// Pointwise reports whether the layer is a 1x1 convolution of stride 1: each
// output position depends on the same position of its input alone.
func (l *Layer) Pointwise() bool {
	f := &l.Facts
	return l.Kind == KindConv && f.KD == 1 && f.KH == 1 && f.KW == 1 && f.StrideH == 1 && f.StrideW == 1 && f.InH == f.OutH && f.InW == f.OutW
}
