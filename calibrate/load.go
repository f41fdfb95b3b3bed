package calibrate

import (
	"fmt"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/passes"
	"github.com/triune-sim/triune/model/zoo"
	"github.com/triune-sim/triune/quant"
)

// LoadZoo is a [Loader] that builds networks of the zoo, simplifies them,
// compresses them by the scheme and lowers them. A measurement labelled fp32
// is of a program that Core ML stored so; under a mask without the Neural
// Engine or the GPU it computes the same.
func LoadZoo(name string, input int, scheme string) (*model.Network, error) {
	e, err := zoo.Info(name)
	if err != nil {
		return nil, err
	}
	if input != 0 && e.Size != 0 && input != e.Size {
		name = fmt.Sprintf("%s@%d", e.Name, input)
	}
	g, err := zoo.Build(name)
	if err != nil {
		return nil, err
	}
	if err := passes.Default(g); err != nil {
		return nil, err
	}
	s, err := quant.Parse(scheme)
	if err != nil {
		return nil, err
	}
	if g, _, err = quant.Apply(g, s, quant.Options{}); err != nil {
		return nil, err
	}
	return model.Lower(g)
}
