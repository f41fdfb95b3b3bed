package zoo

import (
	"fmt"
	"math"

	"github.com/triune-sim/triune/model"
)

// vit is Dosovitskiy et al. 2020 (arXiv 2010.11929) with 16x16 patches, and
// DeiT (Touvron et al. 2020, arXiv 2012.12877), which is the same network in
// smaller widths. Attention is spelled out as frameworks export it.
func vit(depth, dim, heads int) func(b *builder, size int) {
	return func(b *builder, size int) {
		x := b.image(size)
		x = b.conv(x, "conv_proj", conv{out: dim, k: 16, stride: 16, pad: -1, bias: true})
		n := x.Shape[2] * x.Shape[3]
		x = b.transpose(b.reshape(x, 1, dim, n), 0, 2, 1)
		class := b.normal("class_token", 0, 1, 1, 1, dim)
		b.moments[class] = moment{1, 0}
		n++
		x = b.concat(1, class, x)
		position := b.normal("encoder.pos_embedding", 0, 0.2, 1, n, dim)
		b.moments[position] = moment{0.04, 0}
		x = b.add(x, position)
		for i := range depth {
			name := fmt.Sprintf("encoder.layers.%d", i)
			y := b.layerNorm(x, name+".ln_1", 1e-6)
			x = b.add(b.selfAttention(y, name+".self_attention", heads), x)
			y = b.layerNorm(x, name+".ln_2", 1e-6)
			y = gelu(b, b.project(y, name+".mlp.0", 4*dim, true))
			x = b.add(x, b.project(y, name+".mlp.3", dim, true))
		}
		x = b.layerNorm(x, "encoder.ln", 1e-6)
		x = b.reshape(b.slice(x, 1, 0, 1), 1, dim)
		b.output(b.linear(x, "heads.head", 1000), "logits")
	}
}

// selfAttention is softmax(q k^T / sqrt(d)) v with one projection for q, k and
// v and one for the result, on [1,n,dim].
func (b *builder) selfAttention(x *model.Value, name string, heads int) *model.Value {
	n, dim := x.Shape[1], x.Shape[2]
	d := dim / heads
	qkv := b.split(b.project(x, name+".in_proj", 3*dim, true), 2, dim, dim, dim)
	q := b.transpose(b.reshape(qkv[0], 1, n, heads, d), 0, 2, 1, 3)
	k := b.transpose(b.reshape(qkv[1], 1, n, heads, d), 0, 2, 3, 1)
	v := b.transpose(b.reshape(qkv[2], 1, n, heads, d), 0, 2, 1, 3)
	y := b.attention(q, k, v, nil)
	return b.project(b.reshape(b.transpose(y, 0, 2, 1, 3), 1, n, dim), name+".out_proj", dim, true)
}

// attention multiplies queries [1,h,m,d] with keys [1,h,d,n], adds the mask,
// and weighs the values [1,h,n,d].
func (b *builder) attention(q, k, v, mask *model.Value) *model.Value {
	d := q.Shape[3]
	scale := b.scalar("attention.scale", float32(1/math.Sqrt(float64(d))))
	b.moments[scale] = moment{1 / float64(d), 1 / float64(d)}
	scores := b.matmul(b.mul(q, scale), k)
	if mask != nil {
		m := b.moments[scores]
		scores = b.add(scores, mask)
		b.moments[scores] = m
	}
	return b.matmul(b.softmax(scores, -1), v)
}

// slice cuts [from,to) out of an axis.
func (b *builder) slice(x *model.Value, axis, from, to int) *model.Value {
	shape := x.Shape.Clone()
	shape[axis] = to - from
	return b.node("Slice", "", nil, x.DType, shape, x, b.vector(from), b.vector(to), b.vector(axis))
}

// lm is a decoder-only language model of the Llama family: RMS norms, rotary
// positions, grouped-query attention with biased projections, SwiGLU, and an
// output layer that shares the embedding (Qwen2, arXiv 2407.10671).
type lm struct {
	layers, dim, heads, kvHeads, ffn, vocab int
}

// qwen2 is Qwen2-0.5B.
var qwen2 = lm{layers: 24, dim: 896, heads: 14, kvHeads: 2, ffn: 4864, vocab: 151936}

// withLayers returns the model with another depth.
func (m lm) withLayers(n int) lm { m.layers = n; return m }

// build makes the graph of one decoding step: one token enters, the keys and
// values of the context before it come in and go out with one more row.
//
// Inputs: input_ids [1,1] and position [1] (int64), mask [1,1,1,context]
// (added to the scores: 0 keeps, a large negative number hides), and per layer
// past.i.key and past.i.value [1,kvHeads,context-1,d]. Outputs: logits
// [1,vocab], present.i.key and present.i.value [1,kvHeads,context,d].
func (m lm) build(b *builder, context int) {
	if context < 2 {
		fail("zoo: %s: a context of %d tokens; at least 2 are needed", b.g.Name, context)
	}
	d := m.dim / m.heads
	ids := b.input("input_ids", model.Int64, 1, 1)
	position := b.input("position", model.Int64, 1)
	mask := b.input("mask", model.Float32, 1, 1, 1, context)
	embed := b.normal("model.embed_tokens.weight", 0, 1/math.Sqrt(float64(m.dim)), m.vocab, m.dim)
	x := b.node("Gather", "model.embed_tokens", model.Attrs{"axis": 0}, model.Float32, model.Shape{1, 1, m.dim}, embed, ids)
	b.moments[x] = moment{1 / float64(m.dim), 0}
	cos := b.rotary("cos", context, d, math.Cos, position)
	sin := b.rotary("sin", context, d, math.Sin, position)
	for i := range m.layers {
		name := fmt.Sprintf("model.layers.%d", i)
		pastK := b.input(fmt.Sprintf("past.%d.key", i), model.Float32, 1, m.kvHeads, context-1, d)
		pastV := b.input(fmt.Sprintf("past.%d.value", i), model.Float32, 1, m.kvHeads, context-1, d)
		y := b.rmsNorm(x, name+".input_layernorm")
		q := b.rope(b.reshape(b.project(y, name+".self_attn.q_proj", m.heads*d, true), 1, m.heads, 1, d), cos, sin)
		k := b.rope(b.reshape(b.project(y, name+".self_attn.k_proj", m.kvHeads*d, true), 1, m.kvHeads, 1, d), cos, sin)
		v := b.reshape(b.project(y, name+".self_attn.v_proj", m.kvHeads*d, true), 1, m.kvHeads, 1, d)
		k, v = b.concat(2, pastK, k), b.concat(2, pastV, v)
		b.output(k, fmt.Sprintf("present.%d.key", i))
		b.output(v, fmt.Sprintf("present.%d.value", i))
		// The queries that share a key form the rows of one product.
		q = b.reshape(q, 1, m.kvHeads, m.heads/m.kvHeads, d)
		y = b.attention(q, b.transpose(k, 0, 1, 3, 2), v, mask)
		y = b.project(b.reshape(y, 1, 1, m.heads*d), name+".self_attn.o_proj", m.dim, false)
		x = b.add(x, y)
		y = b.rmsNorm(x, name+".post_attention_layernorm")
		gate := swish(b, b.project(y, name+".mlp.gate_proj", m.ffn, false))
		y = b.mul(gate, b.project(y, name+".mlp.up_proj", m.ffn, false))
		x = b.add(x, b.project(y, name+".mlp.down_proj", m.dim, false))
	}
	x = b.reshape(b.rmsNorm(x, "model.norm"), 1, m.dim)
	logits := b.node("Gemm", "lm_head", model.Attrs{"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}, x.DType, model.Shape{1, m.vocab}, x, embed)
	b.output(logits, "logits")
	// Logits first, caches after, as exporters order them.
	outs := b.g.Outputs
	b.g.Outputs = append([]*model.Value{outs[len(outs)-1]}, outs[:len(outs)-1]...)
}

func (b *builder) rmsNorm(x *model.Value, name string) *model.Value {
	c := x.Shape[len(x.Shape)-1]
	y := b.node("RMSNormalization", name, model.Attrs{"axis": -1, "epsilon": 1e-6}, x.DType, x.Shape, x, b.uniform(name+".weight", 0.5, 1.5, c))
	b.moments[y] = moment{1.08, 0}
	return y
}

// rotary looks up the cosines or sines of one position: a table of
// [context,d] with angle position / 10^6^(2j/d), both halves alike.
func (b *builder) rotary(name string, context, d int, f func(float64) float64, position *model.Value) *model.Value {
	shape := model.Shape{context, d}
	table := b.constant("rotary."+name, model.NewLazy(model.Float32, shape, func() (*model.Tensor, error) {
		t := model.NewTensor(model.Float32, shape...)
		v := model.View[float32](t)
		for p := range context {
			for j := range d {
				angle := float64(p) * math.Pow(1e6, -2*float64(j%(d/2))/float64(d))
				v[p*d+j] = float32(f(angle))
			}
		}
		return t, nil
	}))
	y := b.node("Gather", "rotary."+name, model.Attrs{"axis": 0}, model.Float32, model.Shape{1, d}, table, position)
	b.moments[y] = moment{0.5, 0}
	return y
}

// rope turns pairs (x_j, x_{j+d/2}) by the angle of the position (Su et al.
// 2021, arXiv 2104.09864).
func (b *builder) rope(x, cos, sin *model.Value) *model.Value {
	d := x.Shape[3]
	h := b.split(x, 3, d/2, d/2)
	minus := b.node("Neg", "", nil, x.DType, h[1].Shape, h[1])
	return b.add(b.mul(x, cos), b.mul(b.concat(3, minus, h[0]), sin))
}

// lmHead is the output layer of a language model alone: one token's hidden
// state to one score a word.
func lmHead(dim, vocab int) func(b *builder, size int) {
	return func(b *builder, size int) {
		x := b.input("hidden", model.Float32, 1, dim)
		w := b.normal("lm_head.weight", 0, b.moments[x].std(dim), vocab, dim)
		b.output(b.node("Gemm", "lm_head", model.Attrs{"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}, x.DType, model.Shape{1, vocab}, x, w), "logits")
	}
}

// bert is the encoder of BERT-base (Devlin et al. 2018, arXiv 1810.04805), and
// of DistilBERT (arXiv 1910.01108), which has half the layers, no token types
// and no pooler.
//
// Inputs: input_ids [1,n] (int64) and mask [1,1,1,n] (added to the scores: 0
// keeps, a large negative number hides). Outputs: last_hidden_state [1,n,768],
// and pooled [1,768] of BERT.
func bert(layers int, full bool) func(b *builder, n int) {
	const dim, heads, words, positions = 768, 12, 30522, 512
	return func(b *builder, n int) {
		if n > positions {
			fail("zoo: %s: a sequence of %d tokens; the network has %d positions", b.g.Name, n, positions)
		}
		ids := b.input("input_ids", model.Int64, 1, n)
		mask := b.input("mask", model.Float32, 1, 1, 1, n)
		embed := func(name string, rows int, index *model.Value, shape ...int) *model.Value {
			table := b.normal("embeddings."+name+".weight", 0, 0.5, rows, dim)
			y := b.node("Gather", "embeddings."+name, model.Attrs{"axis": 0}, model.Float32, shape, table, index)
			b.moments[y] = moment{0.25, 0}
			return y
		}
		count := make([]int, n)
		for i := range count {
			count[i] = i
		}
		x := embed("word_embeddings", words, ids, 1, n, dim)
		if full {
			// Token type 0 throughout: one sentence.
			x = b.add(x, embed("token_type_embeddings", 2, b.vector(0), 1, dim))
		}
		x = b.add(x, embed("position_embeddings", positions, b.vector(count...), n, dim))
		x = b.layerNorm(x, "embeddings.LayerNorm", 1e-12)
		for i := range layers {
			name := fmt.Sprintf("encoder.layer.%d", i)
			head := func(part string, perm ...int) *model.Value {
				y := b.project(x, name+".attention.self."+part, dim, true)
				return b.transpose(b.reshape(y, 1, n, heads, dim/heads), perm...)
			}
			y := b.attention(head("query", 0, 2, 1, 3), head("key", 0, 2, 3, 1), head("value", 0, 2, 1, 3), mask)
			y = b.reshape(b.transpose(y, 0, 2, 1, 3), 1, n, dim)
			y = b.project(y, name+".attention.output.dense", dim, true)
			x = b.layerNorm(b.add(y, x), name+".attention.output.LayerNorm", 1e-12)
			y = gelu(b, b.project(x, name+".intermediate.dense", 4*dim, true))
			y = b.project(y, name+".output.dense", dim, true)
			x = b.layerNorm(b.add(y, x), name+".output.LayerNorm", 1e-12)
		}
		b.output(x, "last_hidden_state")
		if full {
			first := b.reshape(b.slice(x, 1, 0, 1), 1, dim)
			y := b.linear(first, "pooler.dense", dim)
			y = b.node("Tanh", "", nil, y.DType, y.Shape, y)
			b.output(y, "pooled")
		}
	}
}
