package scheduler

import "github.com/triune-sim/triune/units"

// neModelLimit is the greatest model that the Neural Engine of an iPhone, and
// of macOS 27, takes (coremltools' bisect_model, eeANE's release notes).
const neModelLimit = 1 << 30

// CoreML writes the placement that the known rules of Core ML give:
//
//  1. The Neural Engine runs every layer that it supports (fp32-typed layers,
//     ranks above five and so on are its own refusals).
//  2. A layer that it refuses goes to the CPU if a later layer returns to the
//     Neural Engine, for Core ML avoids going back to it from the GPU. After
//     the last Neural Engine layer, what is left runs on the GPU or on the
//     CPU, whichever gives the shorter plan.
//  3. No ping-pong: a run of Neural Engine layers between two other segments
//     is given up when the plan is shorter without it.
//  4. Without a Neural Engine (masked, missing, or refusing the whole
//     program), the GPU runs what it supports and the CPU the rest, under
//     rule 3.
//  5. The Neural Engine takes no model of more than 1 GiB of weights: a greater
//     one goes as if there were none.
//  6. A graph so small that the CPU alone is no slower stays on the CPU.
//
// Sources: hollance/neural-engine (switches, order of preference), Apple's
// authoring rules for the Neural Engine (segmentation of the graph, cost of
// switching), coremltools guide (typed execution). Core ML itself decides
// before it has measured anything; where the rules need a length, the plan is
// priced by this machine's own model.
func (p *Problem) CoreML(dst []units.Kind) {
	n := len(p.Layers)
	preferred := units.NE
	last := -1
	weights := int64(0)
	for i := range p.Layers {
		if p.Layers[i].Allowed>>units.NE&1 != 0 {
			last = i
			weights += p.Layers[i].Cost[units.NE].ResidentBytes
		}
	}
	if last < 0 || weights > neModelLimit {
		preferred = units.GPU
	}
	var t Timing
	price := func() float64 {
		p.Evaluate(dst, false, &t)
		return t.LatencyMS
	}
	for i := range p.Layers {
		if preferred == units.NE {
			dst[i] = p.pick(i, units.NE, units.CPU, units.GPU)
		} else {
			dst[i] = p.pick(i, units.GPU, units.CPU, units.NE)
		}
	}
	best := price()
	if preferred == units.NE && last < n-1 {
		for i := last + 1; i < n; i++ {
			dst[i] = p.pick(i, units.GPU, units.CPU, units.NE)
		}
		if c := price(); c < best {
			best = c
		} else {
			for i := last + 1; i < n; i++ {
				dst[i] = p.pick(i, preferred, units.CPU, units.GPU)
			}
		}
	}
	// Rule 3, from the front, each island once.
	for i := 0; i < n; {
		j := i
		for j < n && dst[j] == dst[i] {
			j++
		}
		if dst[i] == preferred && i > 0 && j < n {
			movable := true
			for k := i; k < j; k++ {
				movable = movable && p.Layers[k].Allowed>>dst[i-1]&1 != 0
			}
			if movable {
				for k := i; k < j; k++ {
					dst[k] = dst[i-1]
				}
				if c := price(); c < best {
					best = c
				} else {
					for k := i; k < j; k++ {
						dst[k] = preferred
					}
				}
			}
		}
		i = j
	}
	for i := range p.Layers {
		if p.Layers[i].Allowed>>units.CPU&1 == 0 {
			return
		}
	}
	keep := append([]units.Kind(nil), dst[:n]...)
	for i := range dst[:n] {
		dst[i] = units.CPU
	}
	if price() > best {
		copy(dst, keep)
	}
}

// pick returns the first of three units that may run a layer.
func (p *Problem) pick(i int, a, b, c units.Kind) units.Kind {
	allowed := p.Layers[i].Allowed
	for _, u := range [...]units.Kind{a, b, c} {
		if allowed>>u&1 != 0 {
			return u
		}
	}
	return a
}
