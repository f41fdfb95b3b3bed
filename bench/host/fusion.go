package host

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/triune-sim/triune/model/onnx"
)

// Fusion counts the operators that matter to an 8-bit network in the graph
// that a peer runs after its own optimisation. A peer that left the network in
// floating point is no measure of int8 kernels, however fast it is.
type Fusion struct {
	// Fused holds convolutions and products over 8-bit codes (QLinearConv,
	// QLinearMatMul, QGemm, ...) and other operators that read and write codes.
	Fused map[string]int `json:"fused_ops"`
	// Unfused holds convolutions and products over floats (Conv, MatMul, Gemm,
	// ...) and the QuantizeLinear and DequantizeLinear that are left.
	Unfused map[string]int `json:"unfused_ops"`
	// Convs and Products are the convolutions and the matrix products of the
	// graph, of which FusedConvs and FusedProducts are over 8-bit codes.
	Convs         int `json:"convs"`
	FusedConvs    int `json:"fused_convs"`
	Products      int `json:"products"`
	FusedProducts int `json:"fused_products"`
}

// Whole reports whether every convolution and product is over 8-bit codes.
func (f *Fusion) Whole() bool {
	return f.FusedConvs == f.Convs && f.FusedProducts == f.Products
}

// Summary says it in a line.
func (f *Fusion) Summary() string {
	return fmt.Sprintf("%d of %d convolutions and %d of %d products over 8-bit codes, %d QuantizeLinear and %d DequantizeLinear left",
		f.FusedConvs, f.Convs, f.FusedProducts, f.Products, f.Unfused["QuantizeLinear"], f.Unfused["DequantizeLinear"])
}

// opClass says what an operator is to a Fusion.
type opClass uint8

const (
	opOther opClass = iota
	opCodes         // over codes, no multiply-adds to speak of
	opEdge          // between codes and floats
	opConvCodes
	opConvFloat
	opProductCodes
	opProductFloat
)

// opClasses are the operators of ONNX and of ONNX Runtime's own domains
// (com.microsoft, com.microsoft.nchwc, com.ms.internal.nhwc), by name alone:
// the domains repeat names with the same meaning.
var opClasses = map[string]opClass{
	"QuantizeLinear": opEdge, "DequantizeLinear": opEdge, "DynamicQuantizeLinear": opEdge,

	"QLinearConv": opConvCodes, "QLinearConvTranspose": opConvCodes, "ConvInteger": opConvCodes,
	"Conv": opConvFloat, "FusedConv": opConvFloat, "NhwcFusedConv": opConvFloat, "ConvTranspose": opConvFloat,

	"QLinearMatMul": opProductCodes, "QGemm": opProductCodes, "MatMulInteger": opProductCodes,
	"MatMulIntegerToFloat": opProductCodes, "DynamicQuantizeMatMul": opProductCodes, "QAttention": opProductCodes,
	"MatMul": opProductFloat, "Gemm": opProductFloat, "FusedMatMul": opProductFloat, "FusedMatMulActivation": opProductFloat,
	"FusedGemm": opProductFloat, "TransposeMatMul": opProductFloat, "MatMulNBits": opProductFloat, "Attention": opProductFloat,
	"MultiHeadAttention": opProductFloat, "Einsum": opProductFloat,
}

// fusionOf returns what a peer makes of an 8-bit file; nil for other files and
// peers that do not show it.
func fusionOf(ctx context.Context, p Peer, file, scheme string) (*Fusion, error) {
	o, ok := p.(Optimizer)
	if !ok {
		return nil, nil
	}
	if q, err := quantized(file); err != nil || !q {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "triune-fusion-")
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "optimized.onnx")
	if ok, err := o.Optimize(ctx, file, scheme, out); err != nil || !ok {
		return nil, err
	}
	return readFusion(out)
}

// readFusion counts the operators of an ONNX file. Only what it counts is
// decoded, so operators that Triune does not know are no obstacle.
func readFusion(path string) (*Fusion, error) {
	ops, err := countOps(path)
	if err != nil {
		return nil, err
	}
	f := &Fusion{Fused: map[string]int{}, Unfused: map[string]int{}}
	for op, n := range ops {
		class := opClasses[op]
		if class == opOther && strings.HasPrefix(op, "QLinear") {
			class = opCodes
		}
		switch class {
		case opOther:
			continue
		case opConvCodes:
			f.Convs, f.FusedConvs = f.Convs+n, f.FusedConvs+n
		case opConvFloat:
			f.Convs += n
		case opProductCodes:
			f.Products, f.FusedProducts = f.Products+n, f.FusedProducts+n
		case opProductFloat:
			f.Products += n
		}
		switch class {
		case opCodes, opConvCodes, opProductCodes:
			f.Fused[op] += n
		default:
			f.Unfused[op] += n
		}
	}
	return f, nil
}

// quantized reports whether an ONNX file has 8-bit operators or the quantise
// and dequantise pairs that a runtime makes them of.
func quantized(path string) (bool, error) {
	ops, err := countOps(path)
	if err != nil {
		return false, err
	}
	for op := range ops {
		if c := opClasses[op]; c == opEdge || c == opConvCodes || c == opProductCodes {
			return true, nil
		}
	}
	return false, nil
}

// countOps counts the operators of an ONNX file.
func countOps(path string) (map[string]int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	ops, err := onnx.CountOps(b)
	if err != nil {
		return nil, fmt.Errorf("host: %s is not an ONNX model: %w", path, err)
	}
	return ops, nil
}
