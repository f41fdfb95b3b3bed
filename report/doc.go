// Package report turns results into pages, drawings and text for people: a
// self-contained HTML page, Markdown for pull requests, SVG for pages and, by
// gonum/plot, SVG and PNG files.
//
// It reads the documents of package result and nothing else of Triune, so that
// a page can be made of stored JSON. Start with [Page] and [HTML]:
//
//	err := report.HTML(w, &report.Page{Prediction: p, Timeline: t})
//
// A page loads nothing: styles, drawings and the few lines of script that sort
// and filter its table are inside. Without script everything is still there.
// Colours follow the reader's light or dark setting.
package report
