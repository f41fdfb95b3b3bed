package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/coreml"
	"github.com/triune-sim/triune/units"
	"github.com/triune-sim/triune/units/machine"
)

// inspection is what inspect prints.
type inspection struct {
	Model    string          `json:"model"`
	Format   string          `json:"format"`
	Opset    string          `json:"opset"`
	System   string          `json:"system,omitempty"`    // of a Core ML program: "iOS16"
	Function string          `json:"function,omitempty"`  // the one that was read, of several
	Others   []string        `json:"functions,omitempty"` // all of them
	Inputs   []tensorInfo    `json:"inputs"`
	Outputs  []tensorInfo    `json:"outputs"`
	Nodes    int             `json:"nodes"`
	Layers   int             `json:"layers"`
	Params   int64           `json:"params"`
	MACs     int64           `json:"macs"`
	Ops      []countInfo     `json:"operators"`
	Kinds    []countInfo     `json:"layer_kinds"`
	Storage  []storageInfo   `json:"weights"`
	Device   string          `json:"device"`
	Refusals []refusalRecord `json:"refusals"`
}

type tensorInfo struct {
	Name  string `json:"name"`
	DType string `json:"dtype"`
	Shape []int  `json:"shape"`
	// Accepts lists the shapes an input may take, where it has a choice
	// ("[1,3,64..512,64..512]"); Image is what it stands for ("RGB 224x224").
	Accepts string `json:"accepts,omitempty"`
	Image   string `json:"image,omitempty"`
}

type countInfo struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
	MACs  int64  `json:"macs,omitempty"`
}

type storageInfo struct {
	Storage  string `json:"storage"`
	Tensors  int    `json:"tensors"`
	Elements int64  `json:"elements"`
	Bytes    int64  `json:"bytes"`
}

type refusalRecord struct {
	Unit   string   `json:"unit"`
	Op     string   `json:"op"`
	Layers []string `json:"layers"`
	Reason string   `json:"reason"`
}

func (a *app) inspectCommand() *cobra.Command {
	var t target
	var asJSON bool
	c := &cobra.Command{
		Use:   "inspect MODEL",
		Short: "Show a model: inputs, operators, weights by storage, and what each unit would refuse",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lo, err := t.load(args[0])
			if err != nil {
				return err
			}
			schemes, err := t.parseSchemes()
			if err != nil {
				return err
			}
			devices, err := t.parseDevices()
			if err != nil {
				return err
			}
			if len(schemes) != 1 || len(devices) != 1 {
				return usagef("inspect takes one scheme and one device")
			}
			g, err := compile.Load(args[0], lo)
			if err != nil {
				return err
			}
			comp, err := compile.Prepare(g, schemes[0], compile.Options{})
			if err != nil {
				return err
			}
			m, err := machine.New(devices[0])
			if err != nil {
				return err
			}
			doc := inspect(g, comp, m)
			if asJSON {
				return writeJSON(a.stdout, doc)
			}
			a.printInspection(doc)
			return nil
		},
	}
	t.registerModel(c, compile.Stored.Name)
	t.registerDevice(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return c
}

func inspect(g *model.Graph, comp *compile.Compiled, m *units.Machine) inspection {
	doc := inspection{Model: g.Name, Format: g.Format, Opset: g.Opset, Params: comp.Params, MACs: comp.MACs,
		Nodes: len(g.Nodes), Layers: len(comp.Net.Layers), Device: m.Device, Refusals: []refusalRecord{}}
	info := func(v *model.Value) tensorInfo {
		return tensorInfo{v.Name, v.DType.String(), v.Shape, g.Meta[coreml.MetaShapes+v.Name], g.Meta[coreml.MetaImage+v.Name]}
	}
	for _, v := range g.Inputs {
		doc.Inputs = append(doc.Inputs, info(v))
	}
	for _, v := range g.Outputs {
		doc.Outputs = append(doc.Outputs, info(v))
	}
	doc.System = g.Meta[coreml.MetaTarget]
	if all := strings.Split(g.Meta[coreml.MetaFunctions], ","); len(all) > 1 {
		doc.Function, doc.Others = g.Meta[coreml.MetaFunction], all
	}
	ops, kinds := map[string]*countInfo{}, map[string]*countInfo{}
	tally := func(m map[string]*countInfo, name string, macs int64) {
		if m[name] == nil {
			m[name] = &countInfo{Name: name}
		}
		m[name].Count++
		m[name].MACs += macs
	}
	for _, n := range g.Nodes {
		tally(ops, string(n.Op), 0)
	}
	for _, l := range comp.Net.Layers {
		tally(kinds, l.Kind.String(), l.MACs)
	}
	sorted := func(m map[string]*countInfo) []countInfo {
		var out []countInfo
		for _, c := range m {
			out = append(out, *c)
		}
		slices.SortFunc(out, func(a, b countInfo) int {
			return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name))
		})
		return out
	}
	doc.Ops, doc.Kinds = sorted(ops), sorted(kinds)
	store := map[string]*storageInfo{}
	weights := comp.Net.Graph
	if comp.Scheme.Name == compile.Stored.Name {
		weights = g // as the file has them
	}
	for _, v := range weights.Consts() {
		k := storageName(v.Const)
		if store[k] == nil {
			store[k] = &storageInfo{Storage: k}
		}
		s := store[k]
		s.Tensors++
		s.Elements += v.Const.Elems()
		s.Bytes += v.Const.StoredBytes()
	}
	for _, s := range store {
		doc.Storage = append(doc.Storage, *s)
	}
	slices.SortFunc(doc.Storage, func(a, b storageInfo) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Storage, b.Storage))
	})
	index := map[string]int{}
	for _, u := range m.Units {
		if u == nil {
			continue
		}
		for _, l := range comp.Net.Layers {
			s := u.Support(l)
			if s.OK {
				continue
			}
			key := u.Kind().String() + string(l.Op) + s.Reason
			i, ok := index[key]
			if !ok {
				i = len(doc.Refusals)
				index[key] = i
				doc.Refusals = append(doc.Refusals, refusalRecord{Unit: u.Kind().String(), Op: string(l.Op), Reason: s.Reason})
			}
			doc.Refusals[i].Layers = append(doc.Refusals[i].Layers, l.Name)
		}
	}
	return doc
}

// storageName says how a constant is stored: "fp16", "int8 per_channel",
// "palette uint4, 8 tables", "sparse 50 %".
func storageName(c *model.Const) string {
	switch s := c.Storage.(type) {
	case *model.Affine:
		return "affine " + s.Codes.DType.String()
	case *model.Lookup:
		return "palette " + s.Indices.DType.String()
	case *model.Sparse:
		return "sparse " + s.Values.DType.String()
	}
	return c.DType.String()
}

func (a *app) printInspection(d inspection) {
	w := a.stdout
	origin := d.Format
	if d.Opset != "" {
		origin += " " + d.Opset
	}
	if d.System != "" {
		origin += ", " + d.System
	}
	fmt.Fprintf(w, "%s (%s): %d operators, %d layers, %s parameters, %sMAC\n", d.Model, origin, d.Nodes, d.Layers, count(d.Params), count(d.MACs))
	if d.Function != "" {
		fmt.Fprintf(w, "function %s of %s (--function chooses)\n", d.Function, strings.Join(d.Others, ", "))
	}
	line := func(what string, x tensorInfo) {
		fmt.Fprintf(w, "  %-6s  %s  %s%v", what, x.Name, x.DType, model.Shape(x.Shape))
		if x.Image != "" {
			fmt.Fprintf(w, "  image %s", x.Image)
		}
		if x.Accepts != "" {
			fmt.Fprintf(w, "  takes %s (--shape %s=...)", x.Accepts, x.Name)
		}
		fmt.Fprintln(w)
	}
	for _, x := range d.Inputs {
		line("input", x)
	}
	for _, x := range d.Outputs {
		line("output", x)
	}
	fmt.Fprintln(w)
	t := newTable("operator", ">count")
	for _, c := range d.Ops {
		t.add(c.Name, fmt.Sprint(c.Count))
	}
	t.write(w)
	fmt.Fprintln(w)
	t = newTable("layers", ">count", ">MACs")
	for _, c := range d.Kinds {
		t.add(c.Name, fmt.Sprint(c.Count), count(c.MACs))
	}
	t.write(w)
	fmt.Fprintln(w)
	t = newTable("constants stored as", ">tensors", ">elements", ">size")
	for _, s := range d.Storage {
		t.add(s.Storage, fmt.Sprint(s.Tensors), count(s.Elements), size(s.Bytes))
	}
	t.write(w)
	fmt.Fprintln(w)
	if len(d.Refusals) == 0 {
		fmt.Fprintf(w, "every unit of %s runs every layer\n", d.Device)
		return
	}
	fmt.Fprintf(w, "refused on %s:\n", d.Device)
	t = newTable("unit", "operator", ">layers", "reason", "which")
	for _, r := range d.Refusals {
		which := strings.Join(r.Layers[:min(3, len(r.Layers))], ", ")
		if len(r.Layers) > 3 {
			which += ", ..."
		}
		t.add(r.Unit, r.Op, fmt.Sprint(len(r.Layers)), r.Reason, which)
	}
	t.write(w)
}
