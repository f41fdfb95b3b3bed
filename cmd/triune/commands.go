package main

import "github.com/spf13/cobra"

func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.predictCommand(),
		a.runCommand(),
		a.benchCommand(),
		a.inspectCommand(),
		a.devicesCommand(),
		a.whatifCommand(),
		a.checkCommand(),
		a.serveCommand(),
		a.compareCommand(),
		a.compressCommand(),
		a.convertCommand(),
		a.simulateCommand(),
		a.calibrateCommand(),
	}
}
