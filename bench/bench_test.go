package bench

import (
	"testing"
)

// The published table is reproduced: the bars of the project's first promise.
func TestTable(t *testing.T) {
	tab, err := Table()
	if err != nil {
		t.Fatal(err)
	}
	if len(tab.Rows) != 18 {
		t.Fatalf("%d cells, want 18", len(tab.Rows))
	}
	if tab.MAPEPct > 5 || tab.WorstPct > 12 {
		t.Errorf("latency: mean error %.2f %%, worst %.2f %%; want at most 5 and 12", tab.MAPEPct, tab.WorstPct)
	}
	if tab.WorstRatio > 0.03 {
		t.Errorf("compression ratio: worst difference %.3f, want at most 0.03", tab.WorstRatio)
	}
	for _, r := range tab.Rows {
		if !(r.P10MS <= r.SimulatedMS && r.SimulatedMS <= r.P90MS) {
			t.Errorf("%s %s %s: %v outside its interval %v to %v", r.Model, r.Scheme, r.Device, r.SimulatedMS, r.P10MS, r.P90MS)
		}
	}
}

func TestClaims(t *testing.T) {
	claims, err := Claims()
	if err != nil {
		t.Fatal(err)
	}
	if len(claims) != 9 {
		t.Fatalf("%d claims, want 9", len(claims))
	}
	for _, c := range claims {
		if !c.Holds {
			t.Errorf("claim (%s) does not hold: %s", c.ID, c.Statement)
			for _, f := range c.Figures {
				t.Logf("%s: %v %s, %v %s, ratio %.3f, need %s", f.Scenario, f.A, f.ALabel, f.B, f.BLabel, f.Ratio, f.Want)
			}
		}
	}
}
