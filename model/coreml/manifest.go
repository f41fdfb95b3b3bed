package coreml

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
)

// manifest is Manifest.json of a package.
type manifest struct {
	FileFormatVersion   string                  `json:"fileFormatVersion"`
	ItemInfoEntries     map[string]manifestItem `json:"itemInfoEntries"`
	RootModelIdentifier string                  `json:"rootModelIdentifier"`
}

type manifestItem struct {
	Author      string `json:"author"`
	Description string `json:"description"`
	Name        string `json:"name"`
	Path        string `json:"path"`
}

const (
	maxManifest = 1 << 18 // bytes of Manifest.json
	maxSpec     = 1 << 30 // bytes of model.mlmodel; protobuf itself ends at 2 GB
)

// parseManifest reads Manifest.json and returns the path of the root model
// relative to the package's Data folder.
func parseManifest(b []byte) (string, error) {
	if len(b) > maxManifest {
		return "", fmt.Errorf("package manifest of %d bytes is too large (limit %d)", len(b), maxManifest)
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return "", fmt.Errorf("package manifest: %v", oneLine(err))
	}
	v := strings.Split(m.FileFormatVersion, ".")
	major, err := strconv.Atoi(v[0])
	if len(v) != 3 || err != nil {
		return "", fmt.Errorf("package manifest: fileFormatVersion %s, want 1.0.0", quote(m.FileFormatVersion))
	}
	if major != 1 {
		return "", fmt.Errorf("package manifest: fileFormatVersion %s is not supported (want 1.0.0)", quote(m.FileFormatVersion))
	}
	it, ok := m.ItemInfoEntries[m.RootModelIdentifier]
	if !ok {
		return "", fmt.Errorf("package manifest: rootModelIdentifier %s names none of its %d items", quote(m.RootModelIdentifier), len(m.ItemInfoEntries))
	}
	if err := localPath(it.Path); err != nil {
		return "", fmt.Errorf("package manifest: %w", err)
	}
	return it.Path, nil
}

// localPath refuses a path that leaves the folder it is relative to.
func localPath(p string) error {
	if p == "" {
		return fmt.Errorf("an item without a path")
	}
	if strings.ContainsRune(p, '\\') || strings.ContainsFunc(p, unicode.IsControl) || !filepath.IsLocal(filepath.FromSlash(p)) {
		return fmt.Errorf("path %s leaves the package", quote(p))
	}
	return nil
}

// modelFile is what Load needs of a package or of a bare .mlmodel: the
// specification, and the folder that "@model_path" stands for.
type modelFile struct {
	spec []byte
	root *os.Root // folder of the specification; nil when in memory
}

// openModel finds the specification of a package (a folder with a Manifest) or
// reads a bare file. All files of a package are opened below its Data folder
// with os.Root, so that neither a manifest nor a symbolic link can lead out of
// it.
func openModel(path string) (*modelFile, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	dir, name := filepath.Dir(path), filepath.Base(path)
	if st.IsDir() {
		b, err := readLimited(path, "Manifest.json", maxManifest)
		if err != nil {
			if os.IsNotExist(err) {
				return nil, fmt.Errorf("a folder without a Manifest.json is no Core ML package")
			}
			return nil, err
		}
		rel, err := parseManifest(b)
		if err != nil {
			return nil, err
		}
		rel = filepath.FromSlash(rel)
		dir, name = filepath.Join(path, "Data", filepath.Dir(rel)), filepath.Base(rel)
		// The folder itself must not be a link out of the package.
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return nil, err
		}
		base, err := filepath.EvalSymlinks(path)
		if err != nil {
			return nil, err
		}
		if r, err := filepath.Rel(base, real); err != nil || !filepath.IsLocal(r) {
			return nil, fmt.Errorf("the package's model folder is a link that leaves it")
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	m := &modelFile{root: root}
	if m.spec, err = m.read(name, maxSpec); err != nil {
		root.Close()
		return nil, err
	}
	return m, nil
}

func (m *modelFile) close() {
	if m.root != nil {
		m.root.Close()
	}
}

// read returns a whole file below the model's folder.
func (m *modelFile) read(name string, limit int64) ([]byte, error) {
	if m.root == nil {
		return nil, fmt.Errorf("%s: a program in memory has no files beside it", name)
	}
	return readIn(m.root, name, limit)
}

func readLimited(dir, name string, limit int64) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return readIn(root, name, limit)
}

func readIn(root *os.Root, name string, limit int64) ([]byte, error) {
	st, err := root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	if st.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes, the limit is %d", name, st.Size(), limit)
	}
	b, err := root.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// oneLine is an error's text without the control characters that names in a
// file may bring along.
func oneLine(err error) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, err.Error())
}

// line returns err, or its text in one line where it has several.
func line(err error) error {
	if s := oneLine(err); s != err.Error() {
		return errors.New(s)
	}
	return err
}
