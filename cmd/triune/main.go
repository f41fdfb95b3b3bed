// Command triune predicts and executes neural networks on emulated Apple
// compute units. Run "triune help" for the commands.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Exit codes: 0 done; 1 the input is bad or a check does not hold; 2 the
// command line is wrong.
const (
	exitOK    = 0
	exitFail  = 1
	exitUsage = 2
)

// usageError marks a mistake in the command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, a ...any) error { return usageError{fmt.Errorf(format, a...)} }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run executes one command line and returns the exit code. It prints results
// to stdout, and errors, progress and logs to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	a := &app{stdout: stdout, stderr: stderr}
	root := a.root()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if a.log != nil {
		_ = a.log.Sync()
	}
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "triune: %v\n", err)
		return exitUsage
	case errors.Is(err, errSilent):
		return exitFail
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "triune: interrupted")
		return exitFail
	}
	fmt.Fprintf(stderr, "triune: %v\n", err)
	return exitFail
}

// errSilent ends a command with exit code 1 after it has printed why.
var errSilent = errors.New("failed")

// app is what the commands share.
type app struct {
	stdout, stderr io.Writer
	verbose        bool
	log            *zap.Logger
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "triune",
		Short: "Predict and run neural networks on emulated Apple CPU, GPU and Neural Engine",
		Long: `Triune takes a model (ONNX, a Core ML .mlpackage, or a built-in network) and a
device, places the layers on emulated CPU, GPU and Neural Engine, predicts
latency, memory, energy and package size layer by layer, and executes the
network with the arithmetic of the unit each layer landed on.`,
		Args:          cobra.ArbitraryArgs,
		RunE:          group,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			level := zapcore.WarnLevel
			if a.verbose {
				level = zapcore.DebugLevel
			}
			enc := zap.NewDevelopmentEncoderConfig()
			enc.TimeKey = ""
			a.log = zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(enc), zapcore.AddSync(a.stderr), level))
			return nil
		},
	}
	root.PersistentFlags().BoolVarP(&a.verbose, "verbose", "v", false, "log what happens to standard error")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	for _, c := range a.commands() {
		root.AddCommand(c)
	}
	wrapArgs(root)
	return root
}

// group is what a command with subcommands does by itself: it shows its help,
// or names the subcommands when there is none of that name.
func group(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	var names []string
	for _, s := range c.Commands() {
		if s.IsAvailableCommand() {
			names = append(names, s.Name())
		}
	}
	return usagef("%s: unknown command %q (want %s)", c.CommandPath(), args[0], strings.Join(names, ", "))
}

// wrapArgs turns cobra's complaints about positional arguments into usage
// errors, so that they exit with code 2.
func wrapArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usagef("%s: %v (usage: %s)", cmd.CommandPath(), err, cmd.UseLine())
			}
			return nil
		}
	}
	for _, s := range c.Commands() {
		wrapArgs(s)
	}
}
