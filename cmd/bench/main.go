// Command bench measures what Gatehouse costs: it loads a bare
// httputil.ReverseProxy and Gatehouse in turn, in front of the same backend,
// and prints the ratios of throughput and of CPU time a request. Everything
// runs on this machine, on the loopback interface, and stops by itself.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == "child" {
		exitOn(child(ctx, os.Args[2:]))
		return
	}
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "how often each contender is loaded, in turn")
	flag.DurationVar(&o.duration, "duration", 4*time.Second, "for how long each time")
	flag.IntVar(&o.connections, "connections", 128, "how many clients there are")
	flag.StringVar(&o.binary, "gatehouse", "", "another gatehouse binary to measure beside this one")
	flag.Parse()
	exitOn(bench(ctx, o, os.Stdout))
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	rounds      int
	duration    time.Duration
	connections int
	binary      string
}

// contender is one thing that is loaded.
type contender struct {
	name    string
	address string
	pid     int
	request []byte
	results []result
}

// result is one round of one contender.
type result struct {
	perSecond float64       // requests
	cpu       time.Duration // of its process, a request
	p50, p99  time.Duration
}

func bench(ctx context.Context, o options, out io.Writer) error {
	lab, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer lab.close()
	contenders, err := lab.contenders(ctx, o.binary)
	if err != nil {
		return err
	}
	for _, c := range contenders { // once for connections, caches and the collector's pace
		if _, err := load(ctx, c, o.connections, o.duration/4); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	for round := range o.rounds {
		order := slices.Clone(contenders)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, c := range order {
			r, err := load(ctx, c, o.connections, o.duration)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			c.results = append(c.results, r)
		}
		if _, err := fmt.Fprintf(out, "round %d of %d\n", round+1, o.rounds); err != nil {
			return err
		}
	}
	return report(out, contenders)
}

// report prints medians, and ratios to the first contender within each round.
func report(out io.Writer, contenders []*contender) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	// What cannot be written is said by Flush.
	_, _ = fmt.Fprintln(w, "\trequests/s\tCPU/request\tp50\tp99\tthroughput to bare\tmin–max\tCPU to bare\t")
	bare := contenders[0]
	for _, c := range contenders {
		rate := median(c.results, func(_ int, r result) float64 { return r.perSecond })
		cpu := median(c.results, func(_ int, r result) float64 { return float64(r.cpu) })
		p50 := median(c.results, func(_ int, r result) float64 { return float64(r.p50) })
		p99 := median(c.results, func(_ int, r result) float64 { return float64(r.p99) })
		ratio := func(i int, r result) float64 { return r.perSecond / bare.results[i].perSecond }
		cpuRatio := median(c.results, func(i int, r result) float64 { return float64(r.cpu) / float64(bare.results[i].cpu) })
		least, most := extremes(c.results, ratio)
		_, _ = fmt.Fprintf(w, "%s\t%.0f\t%s\t%s\t%s\t%.2f\t%.2f–%.2f\t%.2f\t\n", c.name, rate,
			time.Duration(cpu).Round(100*time.Nanosecond), time.Duration(p50).Round(10*time.Microsecond),
			time.Duration(p99).Round(10*time.Microsecond), median(c.results, ratio), least, most, cpuRatio)
	}
	return w.Flush()
}

func median(results []result, of func(int, result) float64) float64 {
	values := make([]float64, len(results))
	for i, r := range results {
		values[i] = of(i, r)
	}
	slices.Sort(values)
	middle := len(values) / 2
	if len(values)%2 == 1 {
		return values[middle]
	}
	return (values[middle-1] + values[middle]) / 2
}

func extremes(results []result, of func(int, result) float64) (least, most float64) {
	least = of(0, results[0])
	most = least
	for i, r := range results {
		least, most = min(least, of(i, r)), max(most, of(i, r))
	}
	return least, most
}
