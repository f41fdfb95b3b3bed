package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/triune-sim/triune/device"
)

func (a *app) devicesCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "devices [NAME]",
		Short: "List devices and chips, or print one sheet: every figure, its range and its source",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.listDevices(asJSON)
			}
			d, err := device.Load(args[0])
			if err != nil {
				return usageError{err}
			}
			return a.deviceSheet(d, asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return c
}

func (a *app) listDevices(asJSON bool) error {
	type row struct {
		Name    string   `json:"name"`
		Label   string   `json:"label"`
		Chip    string   `json:"chip"`
		OS      string   `json:"os"`
		Aliases []string `json:"aliases"`
		FP16TF  float64  `json:"ne_fp16_tflops"`
		Int8    float64  `json:"ne_int8_tops"`
		DRAMGBs float64  `json:"dram_gbs"`
		Fitted  int      `json:"fitted_parameters"`
	}
	var rows []row
	for _, name := range device.Names() {
		d, err := device.Load(name)
		if err != nil {
			return err
		}
		r := row{Name: d.Name, Label: d.Label, Chip: d.ChipLabel, OS: d.OS, Aliases: d.Aliases, DRAMGBs: d.DRAMGBs.Value}
		if d.HasNE {
			r.FP16TF, r.Int8 = d.NE.PeakTF.Value, d.NE.PeakTF.Value*d.NE.Int8Factor.Value
		}
		for _, p := range d.Params() {
			if p.Fitted {
				r.Fitted++
			}
		}
		rows = append(rows, r)
	}
	if asJSON {
		return writeJSON(a.stdout, rows)
	}
	t := newTable("name", "device", "chip", "os", ">NE fp16 TFLOP/s", ">NE int8 TOPS", ">DRAM GB/s", ">fitted", "also called")
	for _, r := range rows {
		ne, i8 := "-", "-"
		if r.FP16TF > 0 {
			ne, i8 = sig(r.FP16TF, 3), sig(r.Int8, 3)
		}
		t.add(r.Name, r.Label, r.Chip, r.OS, ne, i8, sig(r.DRAMGBs, 4), fmt.Sprint(r.Fitted), strings.Join(r.Aliases, ", "))
	}
	t.write(a.stdout)
	return nil
}

func (a *app) deviceSheet(d *device.Device, asJSON bool) error {
	type figure struct {
		Path   string     `json:"path"`
		Value  float64    `json:"value"`
		Unit   string     `json:"unit"`
		Range  [2]float64 `json:"range"`
		Fitted bool       `json:"fitted"`
		From   string     `json:"from"`
		Source string     `json:"source"`
		Doc    string     `json:"doc"`
	}
	type flag struct {
		Path   string `json:"path"`
		Value  bool   `json:"value"`
		From   string `json:"from"`
		Source string `json:"source"`
		Doc    string `json:"doc"`
	}
	doc := struct {
		Name    string   `json:"name"`
		Label   string   `json:"label"`
		Chip    string   `json:"chip"`
		OS      string   `json:"os"`
		Chain   []string `json:"inherits"`
		Figures []figure `json:"figures"`
		Flags   []flag   `json:"flags"`
	}{Name: d.Name, Label: d.Label, Chip: d.ChipLabel, OS: d.OS, Chain: d.Chain}
	for _, p := range d.Params() {
		doc.Figures = append(doc.Figures, figure{p.Path, p.Value, p.Unit, p.Range, p.Fitted, p.From, p.Source, p.Doc})
	}
	for _, f := range d.Flags() {
		doc.Flags = append(doc.Flags, flag{f.Path, f.Value, f.From, f.Source, f.Doc})
	}
	if asJSON {
		return writeJSON(a.stdout, doc)
	}
	w := a.stdout
	fmt.Fprintf(w, "%s (%s): %s%s\nfigures from %s; * marks those that calibration chose\n\n", d.Label, d.Name, d.ChipLabel, osText(d.OS), strings.Join(d.Chain, " <- "))
	t := newTable("figure", ">value", "unit", "plausible", "from", "source", "what it is")
	for _, f := range doc.Figures {
		mark := ""
		if f.Fitted {
			mark = "*"
		}
		t.add(f.Path, sig(f.Value, 4)+mark, f.Unit, fmt.Sprintf("%s to %s", sig(f.Range[0], 3), sig(f.Range[1], 3)), f.From, f.Source, f.Doc)
	}
	for _, f := range doc.Flags {
		t.add(f.Path, fmt.Sprint(f.Value), "", "", f.From, f.Source, f.Doc)
	}
	t.write(w)
	return nil
}
