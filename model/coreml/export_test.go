package coreml

import "github.com/triune-sim/triune/model"

// Decompressed loads a package and returns the constant behind every
// constexpr operation, by the name of its output.
func Decompressed(path string) (map[string]*model.Const, error) {
	f, err := openModel(path)
	if err != nil {
		return nil, err
	}
	defer f.close()
	m, err := decodeModel(f.spec)
	if err != nil {
		return nil, err
	}
	out := map[string]*model.Const{}
	traceConst = func(name string, k *model.Const) { out[name] = k }
	defer func() { traceConst = nil }()
	_, err = importModel(m, func(n string) ([]byte, error) { return f.read(n, maxWeights) }, Options{})
	return out, err
}
