package whatif

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Expressions of filters and derived columns are Go expressions over the
// columns of a row: numbers, strings and truth values, the usual operators and
// a few functions. They have no loops and no side effects.

type exprKind uint8

const (
	kindNum exprKind = iota
	kindStr
	kindBool
)

func (k exprKind) String() string { return [...]string{"a number", "a text", "a truth value"}[k] }

// env resolves a row's values by column.
type env struct {
	num []float64
	str []string
}

// expr is a compiled expression; exactly one function is set.
type expr struct {
	kind exprKind
	num  func(*env) float64
	str  func(*env) string
	test func(*env) bool
	uses []int // columns
}

// scope maps column names to columns.
type scope struct {
	cols []Column
}

func (s *scope) find(name string) (int, bool) {
	name = strings.ReplaceAll(name, ".", "_")
	i := slices.IndexFunc(s.cols, func(c Column) bool { return c.Name == name })
	return i, i >= 0
}

const maxExpr = 4096

// compileExpr compiles an expression over the columns of a scope.
func compileExpr(src string, s *scope) (*expr, error) {
	if len(src) > maxExpr {
		return nil, fmt.Errorf("whatif: an expression of %d characters (want at most %d)", len(src), maxExpr)
	}
	tree, err := parser.ParseExpr(src)
	if err != nil {
		msg := err.Error()
		if i := strings.Index(msg, ": "); i >= 0 {
			msg = msg[i+2:]
		}
		return nil, fmt.Errorf("whatif: expression %q: %s", src, msg)
	}
	c := compiler{scope: s}
	e, err := c.expr(tree)
	if err != nil {
		return nil, fmt.Errorf("whatif: expression %q: %w", src, err)
	}
	slices.Sort(c.uses)
	e.uses = slices.Compact(c.uses)
	return e, nil
}

type compiler struct {
	scope *scope
	uses  []int
}

var mathFuncs = map[string]func(float64) float64{
	"abs": math.Abs, "sqrt": math.Sqrt, "log": math.Log, "log2": math.Log2, "log10": math.Log10,
	"exp": math.Exp, "floor": math.Floor, "ceil": math.Ceil, "round": math.Round,
}

func (c *compiler) expr(n ast.Expr) (*expr, error) {
	switch n := n.(type) {
	case *ast.ParenExpr:
		return c.expr(n.X)
	case *ast.BasicLit:
		if n.Kind == token.STRING {
			v, err := strconv.Unquote(n.Value)
			if err != nil {
				return nil, err
			}
			return &expr{kind: kindStr, str: func(*env) string { return v }}, nil
		}
		v, err := strconv.ParseFloat(n.Value, 64)
		if err != nil {
			return nil, fmt.Errorf("%s is not a number", n.Value)
		}
		return &expr{kind: kindNum, num: func(*env) float64 { return v }}, nil
	case *ast.Ident:
		return c.column(n.Name)
	case *ast.SelectorExpr:
		name, err := dotted(n)
		if err != nil {
			return nil, err
		}
		return c.column(name)
	case *ast.UnaryExpr:
		x, err := c.expr(n.X)
		if err != nil {
			return nil, err
		}
		switch {
		case n.Op == token.SUB && x.kind == kindNum:
			return &expr{kind: kindNum, num: func(e *env) float64 { return -x.num(e) }}, nil
		case n.Op == token.NOT && x.kind == kindBool:
			return &expr{kind: kindBool, test: func(e *env) bool { return !x.test(e) }}, nil
		}
		return nil, fmt.Errorf("operator %s does not go with %s", n.Op, x.kind)
	case *ast.BinaryExpr:
		x, err := c.expr(n.X)
		if err != nil {
			return nil, err
		}
		y, err := c.expr(n.Y)
		if err != nil {
			return nil, err
		}
		if x.kind != y.kind {
			return nil, fmt.Errorf("operator %s between %s and %s", n.Op, x.kind, y.kind)
		}
		return binary(n.Op, x, y)
	case *ast.CallExpr:
		return c.call(n)
	}
	return nil, errors.New("only columns, numbers, \"texts\", operators and functions are accepted")
}

func dotted(n *ast.SelectorExpr) (string, error) {
	switch x := n.X.(type) {
	case *ast.Ident:
		return x.Name + "." + n.Sel.Name, nil
	case *ast.SelectorExpr:
		s, err := dotted(x)
		return s + "." + n.Sel.Name, err
	}
	return "", errors.New("a dot follows names only")
}

func (c *compiler) column(name string) (*expr, error) {
	switch name {
	case "true", "false":
		v := name == "true"
		return &expr{kind: kindBool, test: func(*env) bool { return v }}, nil
	}
	i, ok := c.scope.find(name)
	if !ok {
		var names []string
		for _, k := range c.scope.cols {
			names = append(names, k.Name)
		}
		return nil, fmt.Errorf("no column %q; there are %s", name, strings.Join(names, ", "))
	}
	c.uses = append(c.uses, i)
	if c.scope.cols[i].Kind == Text {
		return &expr{kind: kindStr, str: func(e *env) string { return e.str[i] }}, nil
	}
	return &expr{kind: kindNum, num: func(e *env) float64 { return e.num[i] }}, nil
}

func binary(op token.Token, x, y *expr) (*expr, error) {
	num := func(f func(a, b float64) float64) (*expr, error) {
		return &expr{kind: kindNum, num: func(e *env) float64 { return f(x.num(e), y.num(e)) }}, nil
	}
	test := func(f func(*env) bool) (*expr, error) { return &expr{kind: kindBool, test: f}, nil }
	switch x.kind {
	case kindNum:
		switch op {
		case token.ADD:
			return num(func(a, b float64) float64 { return a + b })
		case token.SUB:
			return num(func(a, b float64) float64 { return a - b })
		case token.MUL:
			return num(func(a, b float64) float64 { return a * b })
		case token.QUO:
			return num(func(a, b float64) float64 { return a / b })
		case token.REM:
			return num(math.Mod)
		case token.LSS:
			return test(func(e *env) bool { return x.num(e) < y.num(e) })
		case token.LEQ:
			return test(func(e *env) bool { return x.num(e) <= y.num(e) })
		case token.GTR:
			return test(func(e *env) bool { return x.num(e) > y.num(e) })
		case token.GEQ:
			return test(func(e *env) bool { return x.num(e) >= y.num(e) })
		case token.EQL:
			return test(func(e *env) bool { return x.num(e) == y.num(e) })
		case token.NEQ:
			return test(func(e *env) bool { return x.num(e) != y.num(e) })
		}
	case kindStr:
		switch op {
		case token.EQL:
			return test(func(e *env) bool { return x.str(e) == y.str(e) })
		case token.NEQ:
			return test(func(e *env) bool { return x.str(e) != y.str(e) })
		case token.ADD:
			return &expr{kind: kindStr, str: func(e *env) string { return x.str(e) + y.str(e) }}, nil
		}
	case kindBool:
		switch op {
		case token.LAND:
			return test(func(e *env) bool { return x.test(e) && y.test(e) })
		case token.LOR:
			return test(func(e *env) bool { return x.test(e) || y.test(e) })
		case token.EQL:
			return test(func(e *env) bool { return x.test(e) == y.test(e) })
		case token.NEQ:
			return test(func(e *env) bool { return x.test(e) != y.test(e) })
		}
	}
	return nil, fmt.Errorf("operator %s does not go with %s", op, x.kind)
}

func (c *compiler) call(n *ast.CallExpr) (*expr, error) {
	id, ok := n.Fun.(*ast.Ident)
	if !ok {
		return nil, errors.New("only functions by name can be called")
	}
	args := make([]*expr, len(n.Args))
	for i, a := range n.Args {
		var err error
		if args[i], err = c.expr(a); err != nil {
			return nil, err
		}
	}
	all := func(k exprKind) bool {
		return !slices.ContainsFunc(args, func(e *expr) bool { return e.kind != k })
	}
	if f := mathFuncs[id.Name]; f != nil {
		if len(args) != 1 || !all(kindNum) {
			return nil, fmt.Errorf("%s takes one number", id.Name)
		}
		return &expr{kind: kindNum, num: func(e *env) float64 { return f(args[0].num(e)) }}, nil
	}
	switch id.Name {
	case "min", "max":
		if len(args) == 0 || !all(kindNum) {
			return nil, fmt.Errorf("%s takes numbers", id.Name)
		}
		f := math.Min
		if id.Name == "max" {
			f = math.Max
		}
		return &expr{kind: kindNum, num: func(e *env) float64 {
			v := args[0].num(e)
			for _, a := range args[1:] {
				v = f(v, a.num(e))
			}
			return v
		}}, nil
	case "pow":
		if len(args) != 2 || !all(kindNum) {
			return nil, errors.New("pow takes two numbers")
		}
		return &expr{kind: kindNum, num: func(e *env) float64 { return math.Pow(args[0].num(e), args[1].num(e)) }}, nil
	case "one_of":
		if len(args) < 2 || !all(kindStr) {
			return nil, errors.New("one_of takes a text and the texts that it may be")
		}
		return &expr{kind: kindBool, test: func(e *env) bool {
			v := args[0].str(e)
			for _, a := range args[1:] {
				if a.str(e) == v {
					return true
				}
			}
			return false
		}}, nil
	case "contains":
		if len(args) != 2 || !all(kindStr) {
			return nil, errors.New("contains takes two texts")
		}
		return &expr{kind: kindBool, test: func(e *env) bool { return strings.Contains(args[0].str(e), args[1].str(e)) }}, nil
	case "cond":
		if len(args) != 3 || args[0].kind != kindBool || args[1].kind != args[2].kind || args[1].kind == kindBool {
			return nil, errors.New("cond takes a truth value and two numbers or two texts")
		}
		if args[1].kind == kindStr {
			return &expr{kind: kindStr, str: func(e *env) string {
				if args[0].test(e) {
					return args[1].str(e)
				}
				return args[2].str(e)
			}}, nil
		}
		return &expr{kind: kindNum, num: func(e *env) float64 {
			if args[0].test(e) {
				return args[1].num(e)
			}
			return args[2].num(e)
		}}, nil
	}
	return nil, fmt.Errorf("no function %q; there are abs, ceil, cond, contains, exp, floor, log, log10, log2, max, min, one_of, pow, round, sqrt", id.Name)
}
