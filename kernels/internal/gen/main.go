// Command gen writes the amd64 assembly of package kernels.
//
//	go generate ./kernels        (runs: go -C internal/gen run . -dir ../..)
//
// It is a module of its own so that the main go.mod does not carry avo.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/format"
	"go/token"
	"go/types"
	"log"
	"os"
	"path/filepath"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/gotypes"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
	"github.com/mmcloughlin/avo/reg"
)

// asm is an avo context with the conveniences the kernels use.
type asm struct {
	*build.Context
	names   []string // functions, in order
	label   int
	extra   []string // Go source after the stubs
	iotaMem operand.Mem
	permMem operand.Mem
}

// kernelPkg declares the argument types for the signatures in comments.
var kernelPkg = types.NewPackage("kernels", "kernels")

// begin starts func name(t *typ) and loads t into r.
func (a *asm) begin(name, typ string, r reg.GPPhysical) {
	named := types.NewNamed(types.NewTypeName(token.NoPos, kernelPkg, typ, nil), types.NewStruct(nil, nil), nil)
	sig := types.NewSignatureType(nil, nil, nil, types.NewTuple(types.NewVar(token.NoPos, kernelPkg, "t", types.NewPointer(named))), nil, false)
	a.Function(name)
	a.Attributes(attr.NOSPLIT)
	a.Pragma("noescape")
	a.Signature(gotypes.NewSignature(kernelPkg, sig))
	a.arg(r)
	a.names = append(a.names, name)
	a.label = 0
}

// arg loads t into r.
func (a *asm) arg(r reg.GPPhysical) { a.Load(a.Param("t"), r) }

// newLabel returns a label unique in the function.
func (a *asm) newLabel(s string) string {
	a.label++
	return fmt.Sprintf("%s%d", s, a.label)
}

// raw appends an instruction that avo has no constructor for.
func (a *asm) raw(opcode string, ops ...operand.Op) {
	a.Instruction(&ir.Instruction{Opcode: opcode, Operands: ops})
}

// mem is disp(base).
func mem(base reg.Register, disp int) operand.Mem { return operand.Mem{Base: base, Disp: disp} }

// idx is disp(base)(index*scale).
func idx(base, index reg.Register, scale uint8, disp int) operand.Mem {
	return operand.Mem{Base: base, Index: index, Scale: scale, Disp: disp}
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("gen: ")
	out := flag.String("dir", ".", "directory of package kernels")
	flag.Parse()
	files := []struct {
		name string
		gen  func(*asm)
	}{
		{"zf32_avx512_amd64", genF32AVX512},
		{"zi8_avx512_amd64", genI8AVX512},
		{"zdw_avx512_amd64", genDWAVX512},
		{"zdwedge_avx512_amd64", genDWEdgeAVX512},
		{"zdwi8_avx512_amd64", genDWI8AVX512},
		{"zvec_avx512_amd64", genVecAVX512},
		{"zpool_avx512_amd64", genPoolAVX512},
		{"zf32_avx2_amd64", genAVX2},
		{"zi8_avx2_amd64", genI8AVX2},
		{"zvec_avx2_amd64", genVecAVX2},
		{"zaddq8_avx512_amd64", genAddQ8AVX512},
		{"zaddq8_avx2_amd64", genAddQ8AVX2},
		{"zcpu_amd64", genCPU},
	}
	for _, f := range files {
		a := &asm{Context: build.NewContext()}
		f.gen(a)
		write(filepath.Join(*out, f.name), a)
	}
	if err := genARM64(*out); err != nil {
		log.Fatal(err)
	}
}

// write compiles and prints one file of assembly with its stubs.
func write(path string, a *asm) {
	f, err := a.Result()
	if err != nil {
		build.LogError(log.Default(), err, 20)
		os.Exit(1)
	}
	if err := pass.Compile.Execute(f); err != nil {
		log.Fatal(path, ": ", err)
	}
	cfg := printer.Config{Name: "avo by internal/gen", Pkg: "kernels"}
	for ext, p := range map[string]printer.Printer{".s": printer.NewGoAsm(cfg), ".go": printer.NewStubs(cfg)} {
		b, err := p.Print(f)
		if err != nil {
			log.Fatal(path, ": ", err)
		}
		if ext == ".go" {
			b = append(b, a.tables()...)
			for _, e := range a.extra {
				b = append(b, e...)
			}
			if b, err = format.Source(b); err != nil {
				log.Fatal(path, ": ", err)
			}
		}
		if err := os.WriteFile(path+ext, bytes.TrimSpace(b), 0o644); err != nil {
			log.Fatal(err)
		}
		fh, err := os.OpenFile(path+ext, os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			_, err = fh.WriteString("\n")
			fh.Close()
		}
		if err != nil {
			log.Fatal(err)
		}
	}
}

// imm is a small constant as arithmetic instructions take it.
func imm(n int) operand.Op {
	if n < 128 {
		return operand.U8(uint8(n))
	}
	return operand.U32(uint32(n))
}
