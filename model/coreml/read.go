package coreml

import (
	"fmt"
	"math"
	"slices"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/internal/budget"
	"google.golang.org/protobuf/encoding/protowire"
)

// decoder reads messages and counts them, so that a small file cannot ask for
// much memory.
type decoder struct {
	messages int
	title    value // of the operation being read
	mem      *budget.Budget
	// lazy leaves the operations of a function where they are in the file:
	// the importer reads one at a time.
	lazy bool
}

// What records take in memory, in bytes, for the budget.
const (
	namedBytes    = 330 // a name and its type
	opBytes       = 150
	argBytes      = 140
	bindingBytes  = 80
	valueBytes    = 340
	typeBytes     = 250 // a valueType in a list that grows
	dimBytes      = 20
	numberBytes   = 30 // an integer in a list that grows
	stringBytes   = 40 // a string in a list that grows
	featureBytes  = 600
	functionBytes = 300
	metaBytes     = 200
)

func (d *decoder) count(depth int) error {
	if d.messages++; d.messages > maxMessages {
		return fmt.Errorf("more than %d messages in one program", maxMessages)
	}
	if depth > maxDepth {
		return fmt.Errorf("messages nested deeper than %d", maxDepth)
	}
	return nil
}

// sub calls f on every length-delimited field and skips the others.
func sub(b []byte, f func(id protowire.Number, data []byte) error) error {
	return eachField(b, func(fl field) error {
		if fl.typ != protowire.BytesType {
			return nil
		}
		return f(fl.id, fl.data)
	})
}

// notProgram names the members of the oneof Type of a Model that are not ML
// programs.
var notProgram = map[protowire.Number]string{
	200: "pipeline classifier", 201: "pipeline regressor", 202: "pipeline",
	300: "generalised linear regressor", 301: "support-vector regressor", 302: "tree-ensemble regressor",
	303: "neural network regressor", 304: "Bayesian probit regressor",
	400: "generalised linear classifier", 401: "support-vector classifier", 402: "tree-ensemble classifier",
	403: "neural network classifier", 404: "nearest-neighbours classifier",
	500: "neural network", 501: "item-similarity recommender",
	555: "custom model", 556: "linked model", 560: "class-confidence thresholding",
	600: "one-hot encoder", 601: "imputer", 602: "feature vectorizer", 603: "dictionary vectorizer",
	604: "scaler", 606: "categorical mapping", 607: "normalizer", 609: "array feature extractor",
	610: "non-maximum suppression", 900: "identity", 2000: "text classifier", 2001: "word tagger",
	2002: "Vision feature print", 2003: "sound analysis", 2004: "gazetteer", 2005: "word embedding",
	2006: "audio feature print", 3000: "serialized model",
}

// decodeModel reads message Model.
func decodeModel(b []byte) (*specModel, error) { return (&decoder{}).model(b) }

// model reads message Model. A lazy decoder's model keeps it for the
// operations.
func (d *decoder) model(b []byte) (*specModel, error) {
	if d.mem == nil {
		d.mem = budget.New(len(b))
	}
	m := &specModel{dec: d}
	err := eachField(b, func(f field) error {
		switch {
		case f.id == 1 && f.typ == protowire.VarintType:
			m.version = int(int32(f.num))
		case f.id == 2 && f.typ == protowire.BytesType:
			return in("description", d.description(f.data, &m.desc, 0))
		case f.id == 10 && f.typ == protowire.VarintType:
			m.isUpdatable = f.num != 0
		case f.id == 502 && f.typ == protowire.BytesType:
			m.typeField = 502
			m.program = &program{}
			return in("mlProgram", d.program(f.data, m.program))
		case notProgram[f.id] != "":
			m.typeField = int(f.id)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

func in(where string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", where, err)
}

func (d *decoder) description(b []byte, out *description, depth int) error {
	if err := d.count(depth); err != nil {
		return err
	}
	isFunc := depth > 0
	return sub(b, func(id protowire.Number, v []byte) error {
		list := (*[]feature)(nil)
		// FunctionDescription numbers its fields differently.
		if isFunc {
			switch id {
			case 1:
				out.name = string(v)
			case 2:
				list = &out.inputs
			case 3:
				list = &out.outputs
			case 4:
				out.predicted = string(v)
			case 5:
				out.probabilities = string(v)
			case 6:
				list = &out.states
			}
		} else {
			switch id {
			case 1:
				list = &out.inputs
			case 10:
				list = &out.outputs
			case 11:
				out.predicted = string(v)
			case 12:
				out.probabilities = string(v)
			case 13:
				list = &out.states
			case 20:
				var fd description
				if err := d.description(v, &fd, depth+1); err != nil {
					return err
				}
				out.functions = append(out.functions, fd)
			case 21:
				out.defaultFunc = string(v)
			case 100:
				return d.metadata(v, out)
			}
		}
		if list != nil {
			f, err := d.feature(v)
			if err != nil {
				return err
			}
			*list = append(*list, f)
		}
		return nil
	})
}

func (d *decoder) metadata(b []byte, out *description) error {
	return eachField(b, func(f field) error {
		if f.typ != protowire.BytesType {
			return nil
		}
		if err := d.mem.Keep(metaBytes + 2*len(f.data)); err != nil {
			return err
		}
		names := map[protowire.Number]string{1: "shortDescription", 2: "version", 3: "author", 4: "license"}
		if n := names[f.id]; n != "" && len(f.data) > 0 {
			out.meta = append(out.meta, keyValue{n, string(f.data)})
		}
		if f.id == 100 {
			k, v, err := f.mapEntry()
			if err != nil {
				return err
			}
			out.meta = append(out.meta, keyValue{"user." + k, string(v)})
		}
		return nil
	})
}

func (d *decoder) feature(b []byte) (feature, error) {
	var f feature
	if err := d.count(1); err != nil {
		return f, err
	}
	if err := d.mem.Keep(featureBytes + len(b)); err != nil {
		return f, err
	}
	err := sub(b, func(id protowire.Number, v []byte) error {
		switch id {
		case 1:
			f.name = string(v)
		case 2:
			f.short = string(v)
		case 3:
			return d.featureType(v, &f)
		}
		return nil
	})
	return f, in("feature "+quote(f.name), err)
}

func (d *decoder) featureType(b []byte, f *feature) error {
	return eachField(b, func(g field) error {
		if g.id == 1000 && g.typ == protowire.VarintType {
			f.optional = g.num != 0
		}
		if g.typ != protowire.BytesType {
			return nil
		}
		switch g.id {
		case 1:
			f.kind = featureInt64
		case 2:
			f.kind = featureDouble
		case 3:
			f.kind = featureString
		case 4:
			f.kind = featureImage
			return d.image(g.data, &f.image)
		case 5:
			f.kind = featureArray
			return d.array(g.data, &f.array)
		case 6:
			f.kind = featureDictionary
			return sub(g.data, func(id protowire.Number, _ []byte) error {
				f.keyInt64 = id == 1
				return nil
			})
		case 7:
			f.kind = featureSequence
		case 8:
			f.kind = featureState
			return sub(g.data, func(id protowire.Number, v []byte) error {
				if id == 1 {
					return d.array(v, &f.array)
				}
				return nil
			})
		}
		return nil
	})
}

// dim checks a dimension read from a file.
func dim(v uint64) (int, error) {
	if v > math.MaxInt32 {
		return 0, fmt.Errorf("dimension %d is out of range", int64(v))
	}
	return int(v), nil
}

func dims(f field, out *[]int) error {
	return f.varints(func(v uint64) error {
		n, err := dim(v)
		if err != nil {
			return err
		}
		if len(*out) >= maxRank {
			return fmt.Errorf("more than %d dimensions", maxRank)
		}
		*out = append(*out, n)
		return nil
	})
}

func sizeRange(b []byte) (r [2]int, err error) {
	err = eachField(b, func(f field) error {
		if f.typ != protowire.VarintType {
			return nil
		}
		switch f.id {
		case 1:
			r[0] = int(min(f.num, math.MaxInt32))
		case 2:
			r[1] = int(max(min(int64(f.num), math.MaxInt32), -1))
		}
		return nil
	})
	return r, err
}

func (d *decoder) array(b []byte, a *arrayType) error {
	return eachField(b, func(f field) error {
		switch f.id {
		case 1:
			return dims(f, &a.shape)
		case 2:
			a.dtype = int(f.num)
		case 21: // EnumeratedShapes
			return sub(f.data, func(id protowire.Number, v []byte) error {
				if err := d.count(1); err != nil {
					return err
				}
				var s []int
				err := eachField(v, func(g field) error { return dims(g, &s) })
				if err == nil {
					err = d.mem.Keep(stringBytes + dimBytes + 16*len(s))
				}
				a.enumerated = append(a.enumerated, s)
				return err
			})
		case 31: // ShapeRange
			return sub(f.data, func(id protowire.Number, v []byte) error {
				r, err := sizeRange(v)
				if len(a.ranges) >= maxRank {
					return fmt.Errorf("more than %d dimensions", maxRank)
				}
				a.ranges = append(a.ranges, r)
				return err
			})
		}
		return nil
	})
}

func (d *decoder) image(b []byte, m *imageType) error {
	return eachField(b, func(f field) error {
		var err error
		switch f.id {
		case 1:
			m.width, err = dim(f.num)
		case 2:
			m.height, err = dim(f.num)
		case 3:
			m.color = int(f.num)
		case 21:
			return sub(f.data, func(_ protowire.Number, v []byte) error {
				if err := d.mem.Keep(stringBytes); err != nil {
					return err
				}
				r, err := sizeRange(v) // ImageSize has the same two fields
				m.enumerated = append(m.enumerated, r)
				return err
			})
		case 31:
			m.ranges = make([][2]int, 2)
			return sub(f.data, func(id protowire.Number, v []byte) error {
				r, err := sizeRange(v)
				if id == 1 || id == 2 {
					m.ranges[id-1] = r
				}
				return err
			})
		}
		return err
	})
}

func (d *decoder) program(b []byte, p *program) error {
	p.functions = map[string]*function{}
	err := eachField(b, func(f field) error {
		switch f.id {
		case 1:
			p.version = int64(f.num)
		case 2:
			name, v, err := f.mapEntry()
			if err != nil {
				return err
			}
			if err := d.mem.Keep(functionBytes + len(name)); err != nil {
				return err
			}
			fn := &function{}
			if err := d.function(v, fn); err != nil {
				return in("function "+quote(name), err)
			}
			if p.functions[name] != nil {
				return fmt.Errorf("two functions named %s", quote(name))
			}
			p.functions[name] = fn
			p.names = append(p.names, name)
		}
		return nil
	})
	slices.Sort(p.names)
	return err
}

func (d *decoder) function(b []byte, fn *function) error {
	if err := d.count(0); err != nil {
		return err
	}
	blocks := map[string][]byte{}
	err := eachField(b, func(f field) error {
		switch f.id {
		case 1:
			v, err := f.wantBytes()
			if err != nil {
				return err
			}
			return d.named(v, &fn.inputs, 1)
		case 2:
			fn.opset = string(f.data)
		case 3:
			k, v, err := f.mapEntry()
			if err == nil {
				err = d.mem.Keep(metaBytes + len(k))
			}
			if err != nil {
				return err
			}
			blocks[k] = v
		}
		return nil
	})
	if err != nil {
		return err
	}
	v, ok := blocks[fn.opset]
	if !ok {
		return fmt.Errorf("no block for its opset %s", quote(fn.opset))
	}
	fn.block = &block{}
	if d.lazy {
		fn.block.raw = v
	}
	return d.block(v, fn.block, 1)
}

func (d *decoder) named(b []byte, out *[]named, depth int) error {
	if err := d.count(depth); err != nil {
		return err
	}
	if err := d.mem.Pass(namedBytes + len(b)); err != nil {
		return err
	}
	var n named
	err := sub(b, func(id protowire.Number, v []byte) error {
		switch id {
		case 1:
			n.name = string(v)
		case 2:
			return d.valueType(v, &n.typ, depth+1)
		}
		return nil
	})
	if err != nil {
		return in(quote(n.name), err)
	}
	if n.name == "" {
		return fmt.Errorf("a value without a name")
	}
	*out = append(*out, n)
	return nil
}

func (d *decoder) block(b []byte, out *block, depth int) error {
	if err := d.count(depth); err != nil {
		return err
	}
	return sub(b, func(id protowire.Number, v []byte) error {
		switch id {
		case 1:
			return d.named(v, &out.inputs, depth+1)
		case 2:
			if err := d.mem.Pass(stringBytes + len(v)); err != nil {
				return err
			}
			out.outputs = append(out.outputs, string(v))
		case 3:
			if out.raw != nil {
				return nil
			}
			op := &operation{}
			if err := d.operation(v, op, depth+1); err != nil {
				return in(fmt.Sprintf("operation %d (%s)", len(out.ops), plain(op.typ)), err)
			}
			out.ops = append(out.ops, op)
		}
		return nil
	})
}

// operations reads the operations of a block one after the other and calls f
// with each; what is read of one passes with it.
func (d *decoder) operations(b *block, f func(i int, op *operation) error) error {
	for i, op := range b.ops {
		if err := f(i, op); err != nil {
			return err
		}
	}
	i := 0
	return sub(b.raw, func(id protowire.Number, v []byte) error {
		if id != 3 {
			return nil
		}
		defer d.mem.Passed(d.mem.Passing())
		op := &operation{}
		if err := d.operation(v, op, 2); err != nil {
			return in(fmt.Sprintf("operation %d (%s)", i, plain(op.typ)), err)
		}
		i++
		return f(i-1, op)
	})
}

func (d *decoder) operation(b []byte, op *operation, depth int) error {
	if err := d.count(depth); err != nil {
		return err
	}
	if err := d.mem.Pass(opBytes); err != nil {
		return err
	}
	err := eachField(b, func(f field) error {
		v, err := f.wantBytes()
		if err != nil {
			return err
		}
		switch f.id {
		case 1:
			op.typ = string(v)
		case 2:
			key, v, err := f.mapEntry()
			if err != nil {
				return err
			}
			if err := d.mem.Pass(argBytes + len(key)); err != nil {
				return err
			}
			a := argument{key: key}
			err = sub(v, func(id protowire.Number, v []byte) error {
				if id != 1 {
					return nil
				}
				bd, err := d.binding(v, depth+1)
				if err != nil {
					return in("input "+quote(key), err)
				}
				a.args = append(a.args, bd)
				return nil
			})
			if err != nil {
				return err
			}
			op.inputs = append(op.inputs, a)
		case 3:
			return d.named(v, &op.outputs, depth+1)
		case 4:
			if err := d.mem.Pass(opBytes); err != nil {
				return err
			}
			bl := &block{}
			op.blocks = append(op.blocks, bl)
			return d.block(v, bl, depth+1)
		case 5:
			key, v, err := f.mapEntry()
			if err != nil {
				return err
			}
			var val *value
			if key == "name" {
				val = &d.title // read often, kept never
				*val = value{strs: val.strs[:0]}
			} else {
				val = &value{}
			}
			if err := d.value(v, val, depth+1); err != nil {
				return in("attribute "+quote(key), err)
			}
			if key == "name" {
				op.title = ""
				if len(val.strs) == 1 {
					op.title = val.strs[0]
				}
				return nil
			}
			op.attrs = append(op.attrs, attribute{key, val})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if op.typ == "" {
		return fmt.Errorf("an operation without a type")
	}
	// The order of a protobuf map is no information; a later duplicate key
	// replaces an earlier one, as protobuf has it.
	slices.SortStableFunc(op.inputs, func(a, b argument) int { return cmpString(a.key, b.key) })
	slices.SortStableFunc(op.attrs, func(a, b attribute) int { return cmpString(a.key, b.key) })
	op.inputs = lastOf(op.inputs, func(a argument) string { return a.key })
	op.attrs = lastOf(op.attrs, func(a attribute) string { return a.key })
	return nil
}

func cmpString(a, b string) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// lastOf keeps the last of neighbours with the same key.
func lastOf[T any](s []T, key func(T) string) []T {
	out := s[:0]
	for i, x := range s {
		if i+1 < len(s) && key(s[i+1]) == key(x) {
			continue
		}
		out = append(out, x)
	}
	return out
}

func (d *decoder) binding(b []byte, depth int) (binding, error) {
	var bd binding
	if err := d.count(depth); err != nil {
		return bd, err
	}
	if err := d.mem.Pass(bindingBytes + len(b)); err != nil {
		return bd, err
	}
	err := sub(b, func(id protowire.Number, v []byte) error {
		switch id {
		case 1:
			bd.name, bd.val = string(v), nil
		case 2:
			bd.name, bd.val = "", &value{}
			return d.value(v, bd.val, depth+1)
		}
		return nil
	})
	if err == nil && bd.name == "" && bd.val == nil {
		err = fmt.Errorf("a binding to nothing")
	}
	return bd, err
}

func (d *decoder) value(b []byte, out *value, depth int) error {
	if err := d.count(depth); err != nil {
		return err
	}
	if err := d.mem.Pass(valueBytes); err != nil {
		return err
	}
	return sub(b, func(id protowire.Number, v []byte) error {
		switch id {
		case 2:
			return d.valueType(v, &out.typ, depth+1)
		case 3:
			return d.immediate(v, out, depth+1)
		case 5:
			out.blob = true
			return eachField(v, func(f field) error {
				switch f.id {
				case 1:
					out.file = string(f.data)
				case 2:
					out.off = f.num
				}
				return nil
			})
		}
		return nil
	})
}

func (d *decoder) immediate(b []byte, out *value, depth int) error {
	return sub(b, func(id protowire.Number, v []byte) error {
		switch id {
		case 1:
			return d.tensorValue(v, out)
		case 2, 3: // tuple, list
			out.isList = true
			return sub(v, func(id protowire.Number, v []byte) error {
				if id != 1 {
					return nil
				}
				e := &value{}
				out.list = append(out.list, e)
				return d.value(v, e, depth+1)
			})
		case 4:
			return fmt.Errorf("a constant dictionary, which no operation of an ML program takes")
		}
		return nil
	})
}

func (d *decoder) tensorValue(b []byte, out *value) error {
	return sub(b, func(id protowire.Number, v []byte) error {
		if id < 1 || id > 7 {
			return nil
		}
		out.kase = int(id)
		return eachField(v, func(f field) error {
			if f.id != 1 {
				return nil
			}
			switch id {
			case 1, 6: // floats, doubles: packed fixed width, or one by one
				w := 4
				if id == 6 {
					w = 8
				}
				switch f.typ {
				case protowire.BytesType:
					if len(f.data)%w != 0 {
						return errTruncated
					}
					if out.raw == nil { // the usual form
						out.raw = slices.Clip(f.data)
						return nil
					}
					out.raw = append(out.raw, f.data...)
				case protowire.Fixed32Type:
					out.raw = protowire.AppendFixed32(out.raw, uint32(f.num))
				case protowire.Fixed64Type:
					out.raw = protowire.AppendFixed64(out.raw, f.num)
				default:
					return errTruncated
				}
			case 2, 3, 5:
				return f.varints(func(x uint64) error {
					if err := d.mem.Pass(numberBytes); err != nil {
						return err
					}
					if id == 2 {
						x = uint64(int64(int32(x)))
					}
					out.ints = append(out.ints, int64(x))
					return nil
				})
			case 4:
				if out.strs == nil { // in its final size
					n := 0
					_ = eachField(v, func(field) error { n++; return nil })
					if err := d.mem.Pass(16 * n); err != nil {
						return err
					}
					out.strs = make([]string, 0, n)
				}
				if err := d.mem.Pass(16 + len(f.data)); err != nil {
					return err
				}
				out.strs = append(out.strs, string(f.data))
				return d.count(0)
			case 7:
				out.raw = f.data
			}
			return nil
		})
	})
}

func (d *decoder) valueType(b []byte, t *valueType, depth int) error {
	if err := d.count(depth); err != nil {
		return err
	}
	return sub(b, func(id protowire.Number, v []byte) error {
		if id > 1 {
			if err := d.mem.Pass(typeBytes); err != nil {
				return err
			}
		}
		switch id {
		case 1:
			t.kind = kindTensor
			return d.tensorType(v, t)
		case 2:
			t.kind, t.elem, t.length = kindList, &valueType{}, -1
			return sub(v, func(id protowire.Number, v []byte) error {
				switch id {
				case 1:
					return d.valueType(v, t.elem, depth+1)
				case 2:
					n, err := dimension(v)
					t.length = n
					return err
				}
				return nil
			})
		case 3:
			t.kind = kindTuple
			return sub(v, func(id protowire.Number, v []byte) error {
				if err := d.mem.Pass(typeBytes); err != nil {
					return err
				}
				var e valueType
				err := d.valueType(v, &e, depth+1)
				t.tuple = append(t.tuple, e)
				return err
			})
		case 4:
			t.kind, t.elem, t.keyTyp = kindDict, &valueType{}, &valueType{}
			return sub(v, func(id protowire.Number, v []byte) error {
				switch id {
				case 1:
					return d.valueType(v, t.keyTyp, depth+1)
				case 2:
					return d.valueType(v, t.elem, depth+1)
				}
				return nil
			})
		case 5:
			t.kind, t.elem = kindState, &valueType{}
			return sub(v, func(id protowire.Number, v []byte) error {
				if id == 1 {
					return d.valueType(v, t.elem, depth+1)
				}
				return nil
			})
		}
		return nil
	})
}

// dimension reads message Dimension: a size, or -1.
func dimension(b []byte) (int, error) {
	n := -1
	err := sub(b, func(id protowire.Number, v []byte) error {
		if id != 1 {
			return nil
		}
		n = 0
		return eachField(v, func(f field) error {
			if f.id != 1 {
				return nil
			}
			var err error
			n, err = dim(f.num)
			return err
		})
	})
	return n, err
}

func variadic(b []byte) bool {
	yes := false
	_ = sub(b, func(id protowire.Number, v []byte) error {
		if id != 2 {
			return nil
		}
		return eachField(v, func(f field) error {
			yes = yes || f.id == 1 && f.num != 0
			return nil
		})
	})
	return yes
}

func (d *decoder) tensorType(b []byte, t *valueType) error {
	rank := int64(0)
	t.shape = model.Shape{}
	err := eachField(b, func(f field) error {
		switch f.id {
		case 1:
			dt, ok := milTypes[int(f.num)]
			if !ok {
				return fmt.Errorf("unknown element type %d", f.num)
			}
			t.dtype = dt
		case 2:
			rank = int64(f.num)
		case 3:
			v, err := f.wantBytes()
			if err != nil {
				return err
			}
			if len(t.shape) >= maxRank {
				return fmt.Errorf("a tensor of more than %d dimensions", maxRank)
			}
			n, err := dimension(v)
			if err == nil {
				err = d.mem.Pass(dimBytes)
			}
			t.vary = t.vary || variadic(v)
			t.shape = append(t.shape, n)
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	if rank == -1 {
		t.vary = true
	} else if rank != int64(len(t.shape)) {
		return fmt.Errorf("a tensor type of rank %d has %d dimensions", rank, len(t.shape))
	}
	return nil
}

// plain is a name as it is where it is an identifier, quoted otherwise.
func plain(s string) string {
	if ident(s) == s && len(s) <= 80 {
		return s
	}
	return quote(s)
}

// quote quotes a name for an error message, cut short if it is absurd.
func quote(s string) string {
	if len(s) > 80 {
		s = s[:77] + "..."
	}
	return fmt.Sprintf("%q", s)
}
