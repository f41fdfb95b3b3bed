package model

// kindOf maps operators to layer kinds; an operator that is not listed is
// KindOther. Conv and MatMul are refined by their operands in [Lower].
var kindOf = map[Op]Kind{}

func init() {
	for kind, ops := range map[Kind][]Op{
		KindConv:          {"Conv", "DeformConv", "ConvInteger"},
		KindConvTranspose: {"ConvTranspose"},
		KindLinear:        {"Gemm"},
		KindMatMul:        {"MatMul", "MatMulInteger", "Einsum"},
		KindPool:          {"MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "MaxRoiPool", "RoiAlign", "MaxUnpool"},
		KindElementwise: {"Add", "Sub", "Mul", "Div", "Pow", "Mod", "Max", "Min", "Sum", "Mean", "Where", "And", "Or", "Xor",
			"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "PRelu"},
		KindActivation: {"Relu", "Clip", "Sigmoid", "Tanh", "Swish", "HardSwish", "HardSigmoid", "LeakyRelu", "Elu", "Celu", "Selu",
			"Gelu", "Mish", "Softplus", "Softsign", "ThresholdedRelu", "Erf", "Exp", "Log", "Sqrt", "Reciprocal", "Neg", "Abs",
			"Floor", "Ceil", "Round", "Sign", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh",
			"Atanh", "Not", "BitwiseNot", "IsNaN", "IsInf", "Shrink", "Bernoulli", "Dropout"},
		KindSoftmax: {"Softmax", "LogSoftmax", "Hardmax"},
		KindNorm: {"LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization", "LRN", "BatchNormalization",
			"LpNormalization", "MeanVarianceNormalization"},
		KindReduce: {"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum",
			"ReduceLogSumExp", "ReduceSumSquare", "ArgMax", "ArgMin", "CumSum"},
		KindMove: {"Transpose", "Concat", "Slice", "Split", "Pad", "Tile", "Expand", "DepthToSpace", "SpaceToDepth", "ReverseSequence",
			"Trilu", "CenterCropPad", "Col2Im", "EyeLike", "ConstantOfShape", "Range"},
		KindView: {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Shape", "Size"},
		KindGather: {"Gather", "GatherElements", "GatherND", "Scatter", "ScatterElements", "ScatterND", "TensorScatter", "OneHot", "TopK", "NonZero",
			"Compress", "Unique", "NonMaxSuppression"},
		KindResize:    {"Resize", "Upsample", "GridSample", "AffineGrid", "CropResize"},
		KindQuantize:  {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast", "CastLike"},
		KindRecurrent: {"RNN", "GRU", "LSTM"},
		KindAttention: {"Attention", "RotaryEmbedding"},
		KindControl: {"If", "Loop", "Scan", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert",
			"SequenceLength", "SequenceMap", "SplitToSequence", "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement"},
	} {
		for _, op := range ops {
			kindOf[op] = kind
		}
	}
}

// epilogueActs are the activations that a layer may end with.
var epilogueActs = map[Op]bool{"Relu": true, "Clip": true, "Sigmoid": true, "Tanh": true, "Swish": true, "HardSwish": true,
	"HardSigmoid": true, "LeakyRelu": true, "Elu": true, "Gelu": true, "Mish": true, "Softplus": true}

// takesEpilogue tells which anchors accept a fused activation or quantize.
func takesEpilogue(k Kind) bool {
	switch k {
	case KindConv, KindDepthwise, KindConvTranspose, KindLinear, KindMatMul, KindElementwise:
		return true
	}
	return false
}

// takesQuantize tells which anchors may write 8-bit codes: the kinds above and
// those that a quantized chain passes through.
func takesQuantize(k Kind) bool {
	switch k {
	case KindPool, KindActivation, KindReduce, KindSoftmax, KindNorm, KindMove, KindView, KindResize:
		return true
	}
	return takesEpilogue(k)
}

// takesDequantize tells which anchors read 8-bit codes directly.
func takesDequantize(k Kind) bool { return takesQuantize(k) }
