package scheduler

// The execution order decides how many tensors are alive at once, and with
// that how wide the frontier of the search is. The order of the file is
// usually good: exporters write depth first. Where it is not, a greedy order
// that prefers the layer that frees most and adds least is tried.

// wideFrontier is the width from which another order is tried.
const wideFrontier = 10

// orderer reorders problems, reusing its memory.
type orderer struct {
	left, deps, at []int
	ready          []int
	order          []int
	layers         []Layer
	consumers      []int
}

// width returns the most edges that are alive at once.
func (p *Problem) width(left []int) int {
	for i := range p.Edges {
		left[i] = len(p.Edges[i].Consumers)
	}
	live, most := 0, 0
	for i := range p.Layers {
		for _, e := range p.Layers[i].Inputs {
			if left[e]--; left[e] == 0 && p.Edges[e].Producer >= 0 {
				live--
			}
		}
		for _, e := range p.Layers[i].Outputs {
			if left[e] > 0 {
				live++
			}
		}
		most = max(most, live)
	}
	return most
}

// narrow replaces the order of a problem by one with a narrower frontier, if
// its own is wide and a better one is found. It sets p.Order then.
func (o *orderer) narrow(p *Problem) {
	n := len(p.Layers)
	o.left = grow(o.left, len(p.Edges))
	w := p.width(o.left)
	if w < wideFrontier {
		return
	}
	for i := range p.Edges {
		o.left[i] = len(p.Edges[i].Consumers)
	}
	o.deps = grow(o.deps, n)
	o.ready, o.order = o.ready[:0], o.order[:0]
	for i := range p.Layers {
		o.deps[i] = 0
		for _, e := range p.Layers[i].Inputs {
			if p.Edges[e].Producer >= 0 {
				o.deps[i]++
			}
		}
		if o.deps[i] == 0 {
			o.ready = append(o.ready, i)
		}
	}
	live, most := 0, 0
	last := -1
	for len(o.ready) > 0 {
		// Least growth of the frontier first; then a consumer of the layer
		// just placed (depth first); then the file's order.
		best, bestKey := 0, [3]int{1 << 30}
		for r, i := range o.ready {
			grows, follows := 0, 1
			for _, e := range p.Layers[i].Inputs {
				if o.left[e] == 1 && p.Edges[e].Producer >= 0 {
					grows--
				}
				if p.Edges[e].Producer == last && last >= 0 {
					follows = 0
				}
			}
			for _, e := range p.Layers[i].Outputs {
				if o.left[e] > 0 {
					grows++
				}
			}
			if key := [3]int{grows, follows, i}; less3(key, bestKey) {
				best, bestKey = r, key
			}
		}
		i := o.ready[best]
		o.ready = append(o.ready[:best], o.ready[best+1:]...)
		o.order = append(o.order, i)
		last = i
		for _, e := range p.Layers[i].Inputs {
			o.left[e]--
		}
		live += bestKey[0]
		most = max(most, live)
		for _, e := range p.Layers[i].Outputs {
			for _, c := range p.Edges[e].Consumers {
				if o.deps[c]--; o.deps[c] == 0 {
					o.ready = append(o.ready, c)
				}
			}
		}
	}
	if most >= w || len(o.order) != n {
		return
	}
	p.Order = append([]int(nil), o.order...)
	p.reorder(o)
}

func less3(a, b [3]int) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

// reorder permutes the layers to p.Order. Edge lists are copied: they belong
// to the network.
func (p *Problem) reorder(o *orderer) {
	n := len(p.Layers)
	o.at = grow(o.at, n)
	o.layers = append(o.layers[:0], p.Layers...)
	for pos, i := range p.Order {
		o.at[i] = pos
		p.Layers[pos] = o.layers[i]
	}
	o.consumers = o.consumers[:0]
	total := 0
	for i := range p.Edges {
		total += len(p.Edges[i].Consumers)
	}
	o.consumers = grow(o.consumers, total)[:0]
	for i := range p.Edges {
		e := &p.Edges[i]
		if e.Producer >= 0 {
			e.Producer = o.at[e.Producer]
		}
		begin := len(o.consumers)
		for _, c := range e.Consumers {
			o.consumers = append(o.consumers, o.at[c])
		}
		mine := o.consumers[begin:len(o.consumers):len(o.consumers)]
		insertionSort(mine)
		e.Consumers = mine
	}
}

func insertionSort(s []int) {
	for i := 1; i < len(s); i++ {
		for j := i; j > 0 && s[j] < s[j-1]; j-- {
			s[j], s[j-1] = s[j-1], s[j]
		}
	}
}
