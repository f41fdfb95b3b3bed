package result

// Timeline is what happened when, on which unit. Package timeline draws it.
type Timeline struct {
	Title string   `json:"title"`
	Lanes []string `json:"lanes"` // one per unit or queue, top to bottom
	Spans []Span   `json:"spans"` // by start
	EndMS float64  `json:"end_ms"`
}

// Span is one stretch of time in a lane.
type Span struct {
	Lane    int     `json:"lane"`
	Name    string  `json:"name"`
	Kind    string  `json:"kind"` // layer, transfer, floor, handling, request
	StartMS float64 `json:"start_ms"`
	DurMS   float64 `json:"dur_ms"`
	Detail  string  `json:"detail,omitempty"`
}
