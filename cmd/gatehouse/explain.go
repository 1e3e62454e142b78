package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"gatehouse/cmd/gatehouse/config"
	"gatehouse/proxy/contract"
)

type explainCommand struct {
	adminFlags
	Method    string   `arg:"" help:"The method of the request, such as GET."`
	URL       string   `arg:"" help:"Its URL, or the path alone." name:"url"`
	Client    string   `help:"The address that it comes from." required:"" placeholder:"ADDRESS"`
	Header    []string `help:"A header of it, \"Name: value\"; may be repeated. Never a token: that is read from GATEHOUSE_TOKEN or --token-file." sep:"none" placeholder:"HEADER"`
	Key       string   `help:"The id of the key that it is explained for, in the place of a token. With --config: its name in --decisions." placeholder:"KEY"`
	Account   string   `help:"The account of that key, which is found sooner with it." placeholder:"ID"`
	TokenFile string   `help:"The file whose first line is the token, - for the standard input. Left out: GATEHOUSE_TOKEN, if it is set." placeholder:"FILE"`
	Config    string   `help:"Explain what this configuration would decide, without a gateway that runs." placeholder:"FILE"`
	Decisions string   `help:"With --config: the file that describes the key. See docs/explain.md." placeholder:"FILE"`
}

// Run explains the request. That it is refused is no failure.
func (c *explainCommand) Run(t *terminal) error {
	for _, line := range c.Header {
		name, _, _ := strings.Cut(line, ":")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "api-token", "authorization", "cookie", "proxy-authorization":
			return usageError{fmt.Errorf("--header %s: others can read what is on a command line; put a token into GATEHOUSE_TOKEN, or into --token-file", plain(name))}
		}
	}
	if c.Config != "" {
		return c.offline(t)
	}
	if c.Decisions != "" {
		return usageError{errors.New("--decisions is only for --config: a gateway that runs knows its keys")}
	}
	return c.remotely(t)
}

// remotely asks a gateway that runs.
func (c *explainCommand) remotely(t *terminal) error {
	body := struct {
		Method    string   `json:"method"`
		URL       string   `json:"url"`
		Client    string   `json:"client_address"`
		Headers   []string `json:"headers"`
		Token     string   `json:"token,omitempty"`
		KeyID     string   `json:"key_id,omitempty"`
		AccountID string   `json:"account_id,omitempty"`
	}{Method: c.Method, URL: c.URL, Client: c.Client, Headers: append([]string{}, c.Header...), KeyID: c.Key, AccountID: c.Account}
	var err error
	if body.Token, err = c.token(t); err != nil {
		return err
	}
	return c.do(t, http.MethodPost, "/explain", body, func(answer []byte) error {
		e, err := dataOf[contract.Explanation](answer)
		if err != nil {
			return err
		}
		return t.explain(e)
	})
}

const maxTokenLine = 4 << 10

// token is "" where none is to be shown.
func (c *explainCommand) token(t *terminal) (string, error) {
	switch {
	case c.Key != "" && c.TokenFile != "":
		return "", usageError{errors.New("give --key or --token-file, not both")}
	case c.Key != "":
		return "", nil
	case c.TokenFile == "":
		token, _ := t.lookupEnv("GATEHOUSE_TOKEN")
		return token, nil
	}
	in := t.in
	if c.TokenFile != "-" {
		file, err := os.Open(c.TokenFile)
		if err != nil {
			return "", usageError{fmt.Errorf("--token-file: %w", err)}
		}
		defer func() { _ = file.Close() }() // it was only read
		in = file
	}
	line, err := bufio.NewReader(io.LimitReader(in, maxTokenLine)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", usageError{fmt.Errorf("--token-file: %w", err)}
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// offline explains by the configuration and a described key.
func (c *explainCommand) offline(t *terminal) error {
	loaded, err := config.Load(c.Config, t.lookupEnv)
	if err != nil {
		return usageError{err}
	}
	ds := &config.Decisions{}
	if c.Decisions != "" {
		if ds, err = config.LoadDecisions(c.Decisions, loaded, t.lookupEnv); err != nil {
			return usageError{err}
		}
	}
	asked, err := contract.Explain{Method: c.Method, URL: c.URL, ClientAddress: c.Client, Headers: c.Header}.Parse()
	if err != nil {
		return usageError{invalidArguments(err)}
	}
	if _, _, known := ds.Key(c.Key); c.Key != "" && !known {
		return usageError{fmt.Errorf("--key %s: --decisions describes no such key", plain(c.Key))}
	}
	gateway, err := newOffline(loaded)
	if err != nil {
		return err
	}
	e, err := gateway.explain(t.ctx, asked, ds, c.Key, time.Time{})
	if err != nil {
		return err
	}
	return t.explain(e)
}

// explain shows an explanation.
func (t *terminal) explain(e contract.Explanation) error {
	verdict := e.Reason
	if e.Status != nil {
		verdict = fmt.Sprintf("refused: %d %s", *e.Status, plain(e.Reason))
	}
	if err := t.print("%s\n\n", verdict); err != nil {
		return err
	}
	rows := [][]string{{"STEP", "OUTCOME", "DETAIL"}}
	for _, s := range e.Steps {
		detail := s.Detail
		if detail == "" {
			detail = s.Says
		}
		rows = append(rows, []string{plain(s.Step), strings.ReplaceAll(plain(s.Outcome), "_", " "), plain(detail)})
	}
	return t.table(rows)
}
