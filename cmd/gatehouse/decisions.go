package main

import (
	"errors"
	"fmt"
	"strings"

	"gatehouse/cmd/gatehouse/config"
	"gatehouse/proxy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/problem"
)

// checkDecisions holds the configuration against what a file expects of it, and
// prints where they differ.
func checkDecisions(t *terminal, c *config.Config, file string) error {
	ds, err := config.LoadDecisions(file, c, t.lookupEnv)
	if err != nil {
		return usageError{err}
	}
	if len(ds.Tests) == 0 {
		return usageError{fmt.Errorf("%s: has no tests; write at least one", file)}
	}
	gateway, err := newOffline(c)
	if err != nil {
		return err
	}
	differ := 0
	for _, test := range ds.Tests {
		asked, err := test.Asked()
		if err != nil {
			return err
		}
		e, err := gateway.explain(t.ctx, asked, ds, test.Key, test.Moment())
		if err != nil {
			return err
		}
		lines := difference(test, e)
		if len(lines) == 0 {
			continue
		}
		differ++
		if err := t.print("%s:%d:%d: %s\n  %s\n%s\n", file, test.Line, test.Column, plain(test.Name), plain(test.Request), strings.Join(lines, "\n")); err != nil {
			return err
		}
	}
	if differ > 0 {
		return fmt.Errorf("%d of %d decisions are not as expected", differ, len(ds.Tests))
	}
	return t.print("%s: all %d decisions are as expected\n", file, len(ds.Tests))
}

// difference shows what is expected (-) and decided (+) where these are not the
// same, and why it is; nothing where they are.
func difference(t config.DecisionTest, e contract.Explanation) []string {
	var lines []string
	compare := func(name, want string, got *string) {
		if want == "" || got != nil && *got == want {
			return
		}
		decided := "(none)"
		if got != nil {
			decided = plain(*got)
		}
		lines = append(lines, fmt.Sprintf("  - %s: %s", name, plain(want)), fmt.Sprintf("  + %s: %s", name, decided))
	}
	compare("expect", t.Expect, &e.Reason)
	compare("permission", t.Permission, e.Permission)
	compare("subaccount", t.Subaccount, e.Subaccount)
	compare("upstream", t.Upstream, e.Upstream)
	if len(lines) == 0 {
		return nil
	}
	for _, s := range e.Steps {
		if s.Outcome == string(proxy.Refused) {
			lines = append(lines, fmt.Sprintf("    refused by step %s: %s", s.Step, plain(s.Detail)))
		}
	}
	if e.Route != nil {
		lines = append(lines, "    route: "+plain(*e.Route))
	}
	return lines
}

// invalidArguments says what is wrong with arguments as the API would.
func invalidArguments(err error) error {
	p := problem.From(err)
	if len(p.Fields) == 0 {
		return errors.New(p.Detail)
	}
	lines := make([]string, len(p.Fields))
	for i, f := range p.Fields {
		lines[i] = f.Field + ": " + f.Detail
	}
	return errors.New(strings.Join(lines, "\n  "))
}
