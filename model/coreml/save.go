package coreml

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/triune-sim/triune/model"
)

// Save writes a graph as a Core ML package: an ML program in the types the
// graph has (quant.Apply makes it fp16), for [Options].Target. Equal graphs
// give equal bytes. The package is written beside path under another name and
// then renamed; an existing package is replaced, anything else is not.
//
// Constants that are equal are stored once. A constant keeps its compression;
// one that the target cannot express is an error that names the target that
// can. Inputs get the fixed shapes the graph has.
func Save(path string, g *model.Graph, o Options) error {
	if err := save(path, g, o.Target); err != nil {
		return fmt.Errorf("coreml: %s: %s", path, oneLine(err))
	}
	return nil
}

func save(path string, g *model.Graph, t Target) (err error) {
	path = filepath.Clean(path)
	if st, err := os.Lstat(path); err == nil {
		if _, err := os.Stat(filepath.Join(path, "Manifest.json")); !st.IsDir() || err != nil {
			return fmt.Errorf("it exists and is no Core ML package; it is not replaced")
		}
	}
	m, blobs, err := build(g, t, true)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(path), ".mlpackage-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	dir := filepath.Join(tmp, "Data", "com.apple.CoreML")
	if err := os.MkdirAll(filepath.Join(dir, "weights"), 0o755); err != nil {
		return err
	}
	spec := m.encode()
	if err := os.WriteFile(filepath.Join(dir, "model.mlmodel"), spec, 0o644); err != nil {
		return err
	}
	weights := sha256.New()
	weights.Write([]byte("weights"))
	if len(blobs) > 0 {
		f, err := os.Create(filepath.Join(dir, "weights", "weight.bin"))
		if err != nil {
			return err
		}
		w := bufio.NewWriterSize(io.MultiWriter(f, weights), 1<<20)
		err = writeBlobs(w, blobs)
		if err == nil {
			err = w.Flush()
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	model := sha256.New()
	model.Write([]byte("model"))
	model.Write(spec)
	model.Write(weights.Sum(nil))
	if err := os.WriteFile(filepath.Join(tmp, "Manifest.json"), encodeManifest(model.Sum(nil), weights.Sum(nil)), 0o644); err != nil {
		return err
	}
	// Replace: the old package steps aside first, and back if the rename
	// fails.
	old := ""
	if _, err := os.Lstat(path); err == nil {
		old = tmp + ".old"
		if err := os.Rename(path, old); err != nil {
			return err
		}
	}
	if err := os.Rename(tmp, path); err != nil {
		if old != "" {
			os.Rename(old, path)
		}
		return err
	}
	if old != "" {
		return os.RemoveAll(old)
	}
	return nil
}

// Size returns the number of bytes of the package that [Save] would write:
// specification, weights and manifest. Values that are computed at first use
// are not computed; they are taken to be distinct, except for weights' zero
// points of zero, which share one blob. Otherwise the result is exact.
func Size(g *model.Graph, o Options) (int64, error) {
	spec, weights, err := Sizes(g, o)
	if err != nil {
		return 0, err
	}
	return spec + weights + manifestBytes, nil
}

// Sizes returns the bytes of the specification and of the weight file
// separately; see [Size].
func Sizes(g *model.Graph, o Options) (spec, weights int64, err error) {
	m, blobs, err := build(g, o.Target, false)
	if err != nil {
		return 0, 0, fmt.Errorf("coreml: %s", oneLine(err))
	}
	if n := len(blobs); n > 0 {
		weights = int64(blobs[n-1].offset + blobAlign + blobs[n-1].size())
	}
	return int64(len(m.encode())), weights, nil
}

// manifestBytes is the size of every Manifest.json that Save writes.
var manifestBytes = int64(len(encodeManifest(make([]byte, 32), append([]byte{1}, make([]byte, 31)...))))

// encodeManifest writes Manifest.json with identifiers made of two hashes.
func encodeManifest(model, weights []byte) []byte {
	root := uuid(model)
	m := manifest{FileFormatVersion: "1.0.0", RootModelIdentifier: root, ItemInfoEntries: map[string]manifestItem{
		root:          {"com.apple.CoreML", "CoreML Model Specification", "model.mlmodel", "com.apple.CoreML/model.mlmodel"},
		uuid(weights): {"com.apple.CoreML", "CoreML Model Weights", "weights", "com.apple.CoreML/weights"},
	}}
	b := &bytes.Buffer{}
	e := json.NewEncoder(b)
	e.SetIndent("", "    ")
	if err := e.Encode(m); err != nil {
		panic(err) // strings only
	}
	return b.Bytes()
}

// uuid formats a hash as a version 8 (custom) UUID of RFC 9562.
func uuid(h []byte) string {
	u := bytes.Clone(h[:16])
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// writeBlobs writes a weight file.
func writeBlobs(w io.Writer, blobs []*blobOut) error {
	var head [blobAlign]byte
	binary.LittleEndian.PutUint32(head[0:], uint32(len(blobs)))
	binary.LittleEndian.PutUint32(head[4:], blobVersion)
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	at := uint64(blobAlign)
	var pad [blobAlign]byte
	for _, b := range blobs {
		if uint64(len(b.data)) != b.size() {
			return fmt.Errorf("a blob of %d bytes where %d were announced", len(b.data), b.size())
		}
		if _, err := w.Write(pad[:b.offset-at]); err != nil {
			return err
		}
		var meta [blobAlign]byte
		binary.LittleEndian.PutUint32(meta[0:], blobSentinel)
		binary.LittleEndian.PutUint32(meta[4:], blobTypeOf[b.dtype])
		binary.LittleEndian.PutUint64(meta[8:], b.size())
		binary.LittleEndian.PutUint64(meta[16:], b.offset+blobAlign)
		binary.LittleEndian.PutUint64(meta[24:], b.size()*8-uint64(b.elems)*uint64(b.dtype.Bits()))
		if _, err := w.Write(meta[:]); err != nil {
			return err
		}
		if _, err := w.Write(b.data); err != nil {
			return err
		}
		at = b.offset + blobAlign + b.size()
	}
	return nil
}
