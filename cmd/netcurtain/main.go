// Command netcurtain is the daemon of Netcurtain and the command line that
// speaks to it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// cli is every subcommand. Kong reads the tags; each command's Run is beside it.
type cli struct {
	Run     runCmd     `cmd:"" help:"Run the daemon in the foreground."`
	Demo    demoCmd    `cmd:"" help:"Build a made-up house on this machine and watch it live."`
	Inspect inspectCmd `cmd:"" help:"Say who sent what where, and how protected, from capture files."`
	Match   matchCmd   `cmd:"" help:"Decide names against list files, for people who write lists."`

	Status  statusCmd  `cmd:"" help:"Say how the house is: on or off, what can be seen, what is wrong."`
	Devices devicesCmd `cmd:"" help:"List the devices and what they did."`
	Top     topCmd     `cmd:"" help:"Show live who moves the most bytes, and to whom."`
	Flows   flowsCmd   `cmd:"" help:"List flows, newest first, or export them."`
	Lookups lookupsCmd `cmd:"" help:"List look-ups, newest first, or export them."`
	Events  eventsCmd  `cmd:"" help:"List rare events, newest first."`
	Days    daysCmd    `cmd:"" help:"Show what was sent on each day of the last months."`
	Mode    modeCmd    `cmd:"" help:"Say how a device is treated."`
	Log     logCmd     `cmd:"" help:"Say how much of a device's traffic is written down."`
	Carry   carryCmd   `cmd:"" help:"Send a guarded device's readable requests out encrypted, where the other side can."`
	Strip   stripCmd   `cmd:"" help:"Take trackers' headers and cookies out of a guarded device's readable requests."`
	Allow   allowCmd   `cmd:"" help:"Allow a name and everything below it."`
	Block   blockCmd   `cmd:"" help:"Block a name and everything below it."`
	Lists   listsCmd   `cmd:"" help:"Show, add and change lists of names to block or allow."`
	Why     whyCmd     `cmd:"" help:"Say why a name is blocked, or not, and what would change it."`
	Erase   eraseCmd   `cmd:"" help:"Erase what was written down about a device, or all."`
	Forget  forgetCmd  `cmd:"" help:"Forget a device altogether: a new device when it is seen again."`
	Dismiss dismissCmd `cmd:"" help:"Drop a proposal of status: things stay as they are."`
	Off     offCmd     `cmd:"" help:"Open everything: no filter, no observation, until on."`
	On      onCmd      `cmd:"" help:"Undo off."`

	Release    releaseCmd    `cmd:"" help:"Take our rules out of the kernel; what a household cut stays cut."`
	Check      checkCmd      `cmd:"" help:"Check the settings file and what this box can do."`
	Completion completionCmd `cmd:"" help:"Print the completion script for a shell."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
}

// std is what a command talks through; tests give it buffers.
type std struct {
	out, err io.Writer // data, talk
}

// Exit codes, as documented in --help.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], std{os.Stdout, os.Stderr}))
}

// run is main without the process: it parses, runs and gives the exit code.
func run(ctx context.Context, args []string, io std) int {
	c := &cli{}
	exit := -1
	parser, err := newParser(c, io, func(code int) { exit = code })
	if err != nil {
		fmt.Fprintln(io.err, "netcurtain:", err)
		return exitError
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if exit >= 0 { // --help was printed
		return exit
	}
	if err != nil {
		fmt.Fprintf(io.err, "netcurtain: %v\nTry: netcurtain --help\n", err)
		return exitUsage
	}
	command.BindTo(ctx, (*context.Context)(nil))
	err = command.Run(io, parser.Model)
	var usage usageError
	switch {
	case err == nil, errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintln(io.err, "netcurtain:", err)
		return exitUsage
	}
	fmt.Fprintln(io.err, "netcurtain:", err)
	return exitError
}

func newParser(c *cli, io std, exit func(int)) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("netcurtain"),
		kong.Description(`A net curtain lets a household see out while nobody sees in.

Examples:
  netcurtain demo                       a made-up house, on this machine, in a minute
  netcurtain inspect capture.pcap       who sent what where, from a capture file
  netcurtain devices                    what the devices of this house did today
  netcurtain block ads.example --for 1h stop a name for an hour

Exit codes: 0 done, 1 could not, 2 wrong use. Data goes to stdout, talk to stderr.`),
		kong.Writers(io.out, io.err),
		kong.Exit(exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
	)
}

// usageError is the person's mistake: exit code 2.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }
