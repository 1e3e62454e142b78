package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Prometheus is a real one, with the configuration and rules of deploy, that
// scrapes once a second.
type Prometheus struct {
	*process
	Address string
}

// StartPrometheus starts one that scrapes the gateway. Folder is
// deploy/prometheus.
func StartPrometheus(t testing.TB, g *Gatehouse, folder string) *Prometheus {
	t.Helper()
	Need(t, "prometheus")
	own := t.TempDir()
	config := rewrite(t, filepath.Join(folder, "prometheus.yaml"), func(text string) string {
		text = strings.ReplaceAll(text, "127.0.0.1:9090", g.Admin)
		return strings.ReplaceAll(text, "_interval: 15s", "_interval: 1s")
	}, own)
	for _, rules := range []string{"recording.yaml", "alerts.yaml"} {
		rewrite(t, filepath.Join(folder, rules), func(text string) string { return text }, own)
	}
	p := &Prometheus{}
	start := func(address string) *process {
		return run(t, "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(own, "data"),
			"--web.listen-address="+address, "--log.level=warn")
	}
	p.process, p.Address = runOnPort(t, start, func(address string) error {
		p.Address = address
		_, err := p.get("/-/ready", nil)
		return err
	})
	return p
}

// PrometheusAt is one that was started elsewhere, at HOST:PORT.
func PrometheusAt(address string) *Prometheus { return &Prometheus{Address: address} }

// rewrite puts a changed copy of the file into the folder.
func rewrite(t testing.TB, file string, change func(string) string, folder string) string {
	t.Helper()
	text, err := os.ReadFile(file) //nolint:gosec // a file of the project
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(folder, filepath.Base(file))
	if err := os.WriteFile(copied, []byte(change(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	return copied
}

// Sample is one value that a query returned.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// Query asks for what an expression is now.
func (p *Prometheus) Query(expression string) ([]Sample, error) {
	raw, err := p.get("/api/v1/query", url.Values{"query": {expression}})
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			ResultType string
			Result     []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, err
	}
	if answer.Data.ResultType != "vector" {
		return nil, fmt.Errorf("%s is a %s, and no vector", expression, answer.Data.ResultType)
	}
	samples := make([]Sample, 0, len(answer.Data.Result))
	for _, r := range answer.Data.Result {
		text, _ := r.Value[1].(string)
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, err
		}
		samples = append(samples, Sample{Labels: r.Metric, Value: value})
	}
	return samples, nil
}

// Shows returns an error unless the expression has a value that is a number.
func (p *Prometheus) Shows(expression string) error {
	samples, err := p.Query(expression)
	if err != nil {
		return err
	}
	for _, s := range samples {
		if !math.IsNaN(s.Value) && !math.IsInf(s.Value, 0) {
			return nil
		}
	}
	return fmt.Errorf("%s has no value (%d series without a number)", expression, len(samples))
}

// Alert is an alert that is pending or firing.
type Alert struct {
	Labels, Annotations map[string]string
	State               string
}

// Alerts returns those of that name.
func (p *Prometheus) Alerts(name string) ([]Alert, error) {
	raw, err := p.get("/api/v1/alerts", nil)
	if err != nil {
		return nil, err
	}
	var answer struct{ Data struct{ Alerts []Alert } }
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, err
	}
	var named []Alert
	for _, a := range answer.Data.Alerts {
		if a.Labels["alertname"] == name {
			named = append(named, a)
		}
	}
	return named, nil
}

// get returns the answer to a GET, or an error with what Prometheus said.
func (p *Prometheus) get(path string, query url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Address+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	said, err := io.ReadAll(answer.Body)
	err = errors.Join(err, answer.Body.Close())
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d %s", answer.StatusCode, said)
	}
	return said, err
}
