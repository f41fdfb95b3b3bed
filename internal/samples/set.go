package samples

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/triune-sim/triune/internal/npy"
	"github.com/triune-sim/triune/model"
)

// Set is a folder of samples that are read when they are asked for, so that
// thousands of images need the memory of a few. It is safe for concurrent use.
type Set struct {
	inputs []*model.Value
	p      Preprocess
	items  []item
}

type item struct {
	path  string
	kind  byte // i image, d folder, n .npy
	index int  // of the sample in a .npy file
	file  *npyFile
}

// npyFile is a .npy file, read at first use and kept.
type npyFile struct {
	once sync.Once
	ts   []*model.Tensor
	err  error
}

// Open lists a folder as [Load] reads it: the same files in the same order, at
// most limit samples (0: all). Files of .npy are read to count their samples;
// images are decoded by [Set.Sample].
func Open(dir string, inputs []*model.Value, p Preprocess, limit int) (*Set, error) {
	if len(inputs) == 0 {
		return nil, fmt.Errorf("samples: the model has no input")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("samples: %w", err)
	}
	s := &Set{inputs: inputs, p: p}
	for _, e := range entries {
		if limit > 0 && len(s.items) >= limit {
			break
		}
		path := filepath.Join(dir, e.Name())
		switch ext := strings.ToLower(filepath.Ext(path)); {
		case strings.HasPrefix(e.Name(), "."):
		case e.IsDir():
			s.items = append(s.items, item{path: path, kind: 'd'})
		case ext == ".npy":
			f := &npyFile{}
			ts, err := f.load(path, inputs[0])
			if err != nil {
				return nil, err
			}
			for i := range ts {
				s.items = append(s.items, item{path, 'n', i, f})
			}
		case ext == ".png" || ext == ".jpg" || ext == ".jpeg" || ext == ".gif" || ext == ".webp":
			s.items = append(s.items, item{path: path, kind: 'i'})
		}
	}
	if len(s.items) == 0 {
		return nil, fmt.Errorf("samples: %s holds no .npy file, image or folder of .npy files", dir)
	}
	if limit > 0 && len(s.items) > limit {
		s.items = s.items[:limit]
	}
	return s, nil
}

func (f *npyFile) load(path string, in *model.Value) ([]*model.Tensor, error) {
	f.once.Do(func() {
		t, err := npy.Load(path)
		if err != nil {
			f.err = fmt.Errorf("samples: %w", err)
			return
		}
		if f.ts, err = split(t, in); err != nil {
			f.err = fmt.Errorf("samples: %s: %w", path, err)
		}
	})
	return f.ts, f.err
}

// Len returns the number of samples.
func (s *Set) Len() int { return len(s.items) }

// Sample reads sample i.
func (s *Set) Sample(i int) (map[string]*model.Tensor, error) {
	in := s.inputs[0]
	switch it := s.items[i]; it.kind {
	case 'd':
		return folder(it.path, s.inputs)
	case 'n':
		ts, err := it.file.load(it.path, in)
		if err != nil {
			return nil, err
		}
		return map[string]*model.Tensor{in.Name: ts[it.index]}, nil
	default:
		t, err := Image(it.path, in, s.p)
		if err != nil {
			return nil, err
		}
		return map[string]*model.Tensor{in.Name: t}, nil
	}
}
