// Command gatehouse is the gateway and the tools around it: it wires the
// packages together and answers on the command line. It decides nothing.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"gatehouse/cmd/gatehouse/config"
)

// The exit codes that scripts can rely on.
const (
	exitDone        = 0
	exitFailed      = 1 // refused, or gone wrong
	exitUsage       = 2 // wrong command line or configuration
	exitUnreachable = 3 // no gateway answered
)

const exitCodes = "Exit codes: 0 done, 1 refused or failed, 2 wrong command line or configuration, 3 gateway not reachable."

type commands struct {
	Serve       serveCommand       `cmd:"" help:"Run the gateway."`
	Demo        demoCommand        `cmd:"" help:"Run the gateway with sample backends, an account and a key, to try it out."`
	DemoBackend demoBackendCommand `cmd:"" help:"Run the sample backends of the demo by themselves, behind a gateway elsewhere."`
	Check       checkCommand       `cmd:"" help:"Say whether a configuration is valid, and what is wrong with it."`
	Explain     explainCommand     `cmd:"" help:"Say what a gateway decides about a request, step by step, and why."`
	Account     accountCommand     `cmd:"" help:"Provision accounts, as an operator."`
	User        userCommand        `cmd:"" help:"Manage who may sign in to the dashboard for an account, as an operator."`
	Key         keyCommand         `cmd:"" help:"Manage keys: of any account as an operator, or of your own as a customer."`
	Usage       usageCommand       `cmd:"" help:"Show which accounts, keys or routes have the most requests, as an operator."`
	Export      exportCommand      `cmd:"" help:"Write all accounts, keys and users into a file: a backup, or to move them to another store. Guard it: see docs/backup.md."`
	Import      importCommand      `cmd:"" help:"Bring the accounts, keys and users of an export into the store of a configuration. May be repeated."`
	Store       storeCommand       `cmd:"" help:"Make, look at, accept or upgrade the store of a configuration."`
	LogLevel    logLevelCommand    `cmd:"" help:"Show or change what a running gateway logs, as an operator."`
	Health      healthCommand      `cmd:"" help:"Say whether a gateway on this machine is alive, for container health checks."`
	Version     versionCommand     `cmd:"" help:"Print the version."`
}

// terminal is what a command is connected to.
type terminal struct {
	ctx       context.Context
	in        io.Reader
	out, err  io.Writer
	lookupEnv func(string) (string, bool)
}

func main() {
	ctx, stop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // ends with the process
		<-signals
		stop()
		<-signals // whoever asks twice does not wait
		os.Exit(exitFailed)
	}()
	os.Exit(run(&terminal{ctx: ctx, in: os.Stdin, out: os.Stdout, err: os.Stderr, lookupEnv: os.LookupEnv}, os.Args[1:]))
}

// run runs the command line and returns the exit code.
func run(t *terminal, args []string) int {
	var c commands
	exited := -1
	parser, err := kong.New(&c,
		kong.Name("gatehouse"),
		kong.Description("An authenticating reverse proxy for products that are sold as APIs.\n\n"+exitCodes),
		kong.Writers(t.out, t.err),
		kong.Exit(func(code int) { exited = code }),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		panic(err) // the commands above are declared wrongly
	}
	parsed, err := parser.Parse(args)
	if exited >= 0 {
		return exited // --help
	}
	if err != nil {
		t.complain(err)
		return exitUsage
	}
	if err := parsed.Run(t); err != nil {
		t.complain(err)
		return exitCode(err)
	}
	return exitDone
}

// complain does not wait for a terminal that takes nothing: the process must end
// all the same.
func (t *terminal) complain(err error) {
	said := make(chan struct{})
	go func() { // ends with the process, if not before
		defer close(said)
		_, _ = fmt.Fprintf(t.err, "gatehouse: %v\n", err) // there is nowhere else to say it
	}()
	late := time.NewTimer(stopPatience)
	defer late.Stop()
	select {
	case <-said:
	case <-late.C:
	}
}

// usageError is a command line that cannot be carried out.
type usageError struct{ error }

// unreachableError: no gateway answered.
type unreachableError struct{ error }

func exitCode(err error) int {
	var usage usageError
	var unreachable unreachableError
	var problems config.Problems
	switch {
	case errors.As(err, &usage), errors.As(err, &problems):
		return exitUsage
	case errors.As(err, &unreachable):
		return exitUnreachable
	}
	return exitFailed
}
