// Package samples reads user data for calibration and comparison: folders of
// .npy files and images, with the preprocessing that image networks expect.
package samples

import (
	"errors"
	"fmt"
	"image"
	_ "image/gif"  // decoders of what users have
	_ "image/jpeg" //
	_ "image/png"  //
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/image/draw"
	_ "golang.org/x/image/webp" // registers the decoder

	"github.com/triune-sim/triune/internal/npy"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/coreml"
)

// Preprocess says how an image becomes a tensor: resized to the input's
// height and width, each channel (value/255 - Mean) / Std. The zero value is
// ImageNet's usual normalisation.
type Preprocess struct {
	Mean, Std []float64 // per channel; one value serves all

	pixels bool // values of 0 to 255 as they are
	bgr    bool // blue first
}

// For returns the preprocessing for an input of a graph: an image input of a
// Core ML model takes pixels of 0 to 255 in its own order of colours (what is done
// to them is part of the model), unless Mean or Std say otherwise.
func (p Preprocess) For(g *model.Graph, input string) Preprocess {
	colour, _, _ := strings.Cut(g.Meta[coreml.MetaImage+input], " ")
	p.pixels = colour != "" && len(p.Mean) == 0 && len(p.Std) == 0
	p.bgr = colour == "BGR"
	return p
}

func (p Preprocess) at(v []float64, def []float64, c int) float64 {
	switch {
	case len(v) == 0:
		return def[min(c, len(def)-1)]
	case c < len(v):
		return v[c]
	}
	return v[len(v)-1]
}

var (
	imagenetMean = []float64{0.485, 0.456, 0.406}
	imagenetStd  = []float64{0.229, 0.224, 0.225}
)

// maxPixels bounds a decoded image.
const maxPixels = 1 << 26

// Load reads the files of a folder, in the order of their names: each .npy
// file or image is one sample of the model's first input (a .npy file whose
// first dimension is n times the input's holds n samples), and each subfolder
// is one sample with a NAME.npy per input. At most limit samples are read (0:
// all).
func Load(dir string, inputs []*model.Value, p Preprocess, limit int) ([]map[string]*model.Tensor, error) {
	set, err := Open(dir, inputs, p, limit)
	if err != nil {
		return nil, err
	}
	out := make([]map[string]*model.Tensor, set.Len())
	for i := range out {
		if out[i], err = set.Sample(i); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func folder(dir string, inputs []*model.Value) (map[string]*model.Tensor, error) {
	s := map[string]*model.Tensor{}
	for _, v := range inputs {
		path := filepath.Join(dir, v.Name+".npy")
		t, err := npy.Load(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("samples: %s: %s is missing (one NAME.npy per input)", dir, v.Name+".npy")
		}
		if err != nil {
			return nil, fmt.Errorf("samples: %w", err)
		}
		s[v.Name] = t
	}
	return s, nil
}

// split cuts a tensor of n samples along the first dimension.
func split(t *model.Tensor, in *model.Value) ([]*model.Tensor, error) {
	if t.Shape.Equal(in.Shape) {
		return []*model.Tensor{t}, nil
	}
	per := in.Shape.Elems()
	n := t.Shape.Elems()
	ok := len(t.Shape) == len(in.Shape) && len(t.Shape) > 0 && slices.Equal(t.Shape[1:], in.Shape[1:])
	ok = ok || len(t.Shape) == len(in.Shape)+1 && slices.Equal(t.Shape[1:], in.Shape)
	if ok && n == 0 {
		return nil, fmt.Errorf("shape %v holds no sample", t.Shape)
	}
	if !ok || per <= 0 || n%per != 0 {
		return nil, fmt.Errorf("shape %v does not fit input %s (want %v, or several along the first axis)", t.Shape, in, in.Shape)
	}
	bytes := int64(len(t.Data)) / (n / per)
	var out []*model.Tensor
	for i := range n / per {
		out = append(out, &model.Tensor{DType: t.DType, Shape: in.Shape.Clone(), Data: t.Data[i*bytes : (i+1)*bytes]})
	}
	return out, nil
}

// Image decodes and preprocesses one image for an input of shape [1,C,H,W]
// with C 1 or 3.
func Image(path string, in *model.Value, p Preprocess) (*model.Tensor, error) {
	s := in.Shape
	if len(s) != 4 || s[0] != 1 || (s[1] != 1 && s[1] != 3) {
		return nil, fmt.Errorf("samples: %s: an image does not fit input %s (want shape [1,3,H,W] or [1,1,H,W])", path, in)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("samples: %w", err)
	}
	defer f.Close()
	cfg, _, err := image.DecodeConfig(f)
	if err != nil {
		return nil, fmt.Errorf("samples: %s: no readable image: %w", path, err)
	}
	if cfg.Width < 1 || cfg.Height < 1 || cfg.Width*cfg.Height > maxPixels {
		return nil, fmt.Errorf("samples: %s: image of %dx%d pixels (at most %d pixels)", path, cfg.Width, cfg.Height, maxPixels)
	}
	if _, err := f.Seek(0, 0); err != nil {
		return nil, fmt.Errorf("samples: %s: %w", path, err)
	}
	src, _, err := image.Decode(f)
	if err != nil {
		return nil, fmt.Errorf("samples: %s: no readable image: %w", path, err)
	}
	h, w := s[2], s[3]
	dst := image.NewNRGBA(image.Rect(0, 0, w, h))
	draw.BiLinear.Scale(dst, dst.Bounds(), src, src.Bounds(), draw.Src, nil)
	t := model.NewTensor(model.Float32, s...)
	v := model.View[float32](t)
	for c := range s[1] {
		mean, std := p.at(p.Mean, imagenetMean, c), p.at(p.Std, imagenetStd, c)
		for i := range h * w {
			px := dst.Pix[4*i : 4*i+3]
			var x float64
			switch {
			case s[1] == 1: // ITU-R 601 luma
				x = 0.299*float64(px[0]) + 0.587*float64(px[1]) + 0.114*float64(px[2])
			case p.bgr:
				x = float64(px[2-c])
			default:
				x = float64(px[c])
			}
			if !p.pixels {
				x = (x/255 - mean) / std
			}
			v[c*h*w+i] = float32(x)
		}
	}
	return t, nil
}

// Labels reads one class index a line.
func Labels(path string, want int) ([]int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("samples: %w", err)
	}
	var out []int
	for i, line := range strings.Fields(string(data)) {
		n, err := strconv.Atoi(line)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("samples: %s: entry %d is %q (want one class index a line)", path, i+1, line)
		}
		out = append(out, n)
	}
	if len(out) != want {
		return nil, fmt.Errorf("samples: %s holds %d labels for %d samples", path, len(out), want)
	}
	return out, nil
}
