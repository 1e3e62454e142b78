package check_test

import (
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"sigs.k8s.io/yaml"
)

const composeFolder = "../compose/"

// composed loads the project as `docker compose` does.
func composed(t *testing.T, environment types.Mapping) (*types.Project, error) {
	t.Helper()
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir: composeFolder, Environment: environment,
		ConfigFiles: []types.ConfigFile{{Filename: composeFolder + "compose.yaml"}},
	})
}

func project(t *testing.T) *types.Project {
	t.Helper()
	p, err := composed(t, types.Mapping{"GATEHOUSE_ADMIN_TOKEN": "0123456789abcdef0123"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestComposeNeedsAnAdminToken(t *testing.T) {
	if _, err := composed(t, nil); err == nil || !strings.Contains(err.Error(), "openssl rand -hex 32") {
		t.Errorf("got %v, want to be told how to make one", err)
	}
}

// TestComposeMountsWhatThereIs: Docker would make a folder of a file that is
// missing.
func TestComposeMountsWhatThereIs(t *testing.T) {
	p := project(t)
	for name, service := range p.Services {
		for _, mount := range service.Volumes {
			if mount.Type != types.VolumeTypeBind {
				if _, ok := p.Volumes[mount.Source]; !ok {
					t.Errorf("%s: there is no volume %s", name, mount.Source)
				}
				continue
			}
			if !mount.ReadOnly {
				t.Errorf("%s may write %s", name, mount.Source)
			}
			if _, err := os.Stat(mount.Source); err != nil && !isOfAnotherPart(mount.Source) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// isOfAnotherPart reports whether a file is of the monitoring, where this tree
// has none of it.
func isOfAnotherPart(file string) bool {
	_, err := os.Stat("../prometheus")
	return err != nil && (strings.Contains(file, "/prometheus/") || strings.Contains(file, "/grafana/")) && !strings.Contains(file, "/compose/")
}

// TestComposeIsConfined: nobody writes but to volumes, and the operators' ports
// are this machine's alone.
func TestComposeIsConfined(t *testing.T) {
	public := []string{}
	for name, service := range project(t).Services {
		if !service.ReadOnly || !slices.Contains(service.CapDrop, "ALL") || !slices.Contains(service.SecurityOpt, "no-new-privileges:true") || service.Privileged {
			t.Errorf("%s is not confined", name)
		}
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				public = append(public, name+" "+port.Published)
			}
		}
	}
	if !slices.Equal(public, []string{"gatehouse 8080"}) {
		t.Errorf("the world reaches %q", public)
	}
}

// TestComposeKeepsWhatIsAcknowledged in Redis.
func TestComposeKeepsWhatIsAcknowledged(t *testing.T) {
	redis := project(t).Services["redis"]
	line := " " + strings.Join(redis.Command, " ") + " "
	for _, want := range []string{" --appendonly yes ", " --appendfsync always ", " --maxmemory-policy noeviction "} {
		if !strings.Contains(line, want) {
			t.Errorf("redis is run as%s, without%s", line, want)
		}
	}
	if len(redis.Volumes) != 1 || redis.Volumes[0].Target != "/data" {
		t.Errorf("redis keeps its data in %+v", redis.Volumes)
	}
}

// TestComposeNamesWhatThereIs: every host that a configuration names is a
// service on a network that both are on, and listens there.
func TestComposeNamesWhatThereIs(t *testing.T) {
	p := project(t)
	var config struct {
		Upstreams map[string]struct{ Targets []string }
		Store     struct{ Redis struct{ Addrs []string } }
	}
	readYAML(t, composeFolder+"gatehouse/config.yaml", &config)
	targets := slices.Clone(config.Store.Redis.Addrs)
	for _, u := range config.Upstreams {
		targets = append(targets, u.Targets...)
	}
	for _, target := range targets {
		host, port := hostPort(t, target)
		if !together(p, "gatehouse", host) {
			t.Errorf("gatehouse does not reach %s", target)
		}
		line := strings.Join(p.Services[host].Command, " ")
		if host != "redis" && !strings.HasSuffix(line, "demo-backend --listen :"+port) {
			t.Errorf("%s does not listen on %s: %s", host, port, line)
		}
	}
	var prometheus struct {
		Files  []string `json:"rule_files"`
		Scrape []struct {
			Static []struct{ Targets []string } `json:"static_configs"`
		} `json:"scrape_configs"`
	}
	readYAML(t, composeFolder+"prometheus.yaml", &prometheus)
	if len(prometheus.Scrape) != 1 || prometheus.Scrape[0].Static[0].Targets[0] != "gatehouse:9090" || !together(p, "prometheus", "gatehouse") {
		t.Errorf("Prometheus asks %+v", prometheus.Scrape)
	}
	for _, file := range prometheus.Files {
		if !slices.ContainsFunc(p.Services["prometheus"].Volumes, func(v types.ServiceVolumeConfig) bool { return v.Target == "/etc/prometheus/"+file }) {
			t.Errorf("Prometheus has no rules %s", file)
		}
	}
	var sources struct{ Datasources []struct{ URL string } }
	readYAML(t, composeFolder+"grafana/datasources.yaml", &sources)
	if host, _ := hostPort(t, sources.Datasources[0].URL); !together(p, "grafana", host) {
		t.Errorf("Grafana does not reach %s", host)
	}
}

// together reports whether two services share a network.
func together(p *types.Project, a, b string) bool {
	for network := range p.Services[a].Networks {
		if _, ok := p.Services[b].Networks[network]; ok {
			return true
		}
	}
	return false
}

func hostPort(t *testing.T, target string) (host, port string) {
	t.Helper()
	if !strings.Contains(target, "://") {
		target = "tcp://" + target
	}
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	return u.Hostname(), u.Port()
}

func readYAML(t *testing.T, file string, into any) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err == nil {
		err = yaml.Unmarshal(raw, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// TestGatehouseTakesTheConfigurationOfCompose.
func TestGatehouseTakesTheConfigurationOfCompose(t *testing.T) {
	token := "GATEHOUSE_ADMIN_TOKEN=0123456789abcdef0123"
	if said, err := gatehouse(t, []string{token}, "check", "--config", composeFolder+"gatehouse/config.yaml").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}
