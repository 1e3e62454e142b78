package config_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"gatehouse/cmd/gatehouse/config"
)

const marker = "hunter2-hunter2-hunter2"

func TestSecretsDoNotPrint(t *testing.T) {
	c := mustParse(t, minimal+"admin_token: "+marker+"\n", noEnv)
	c.Store.Redis.Password, c.Store.Redis.SentinelPassword = marker, marker
	if string(c.AdminToken) != marker {
		t.Errorf("the token itself: got %q", string(c.AdminToken))
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if text := fmt.Sprintf(verb, c.AdminToken); strings.Contains(text, marker) || strings.Contains(text, fmt.Sprintf(verb, marker)) {
			t.Errorf("%s shows the secret: %s", verb, text)
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		if text := fmt.Sprintf(verb, *c) + fmt.Sprintf(verb, *c.Store.Redis); strings.Contains(text, marker) {
			t.Errorf("%s of what holds it shows the secret: %s", verb, text)
		}
	}
	encoded, err := json.Marshal(c)
	if err != nil || strings.Contains(string(encoded), marker) {
		t.Errorf("JSON shows the secret, or %v: %s", err, encoded)
	}
}

// TestSecretsAreInNoMessage has each mistake that can be made with a secret.
func TestSecretsAreInNoMessage(t *testing.T) {
	mistakes := map[string]string{
		"too short":            "admin_token: hunter2",
		"a number":             "admin_token: 4242424242424242424",
		"a list":               "admin_token: [hunter2]",
		"a mapping":            "admin_token: {hunter2: hunter2x}",
		"a tag":                "admin_token: !hunter2 hunter2",
		"a tag alone":          "admin_token: !hunter2",
		"an anchor":            "admin_token: &hunter2 hunter2",
		"an alias":             "admin_token: *hunter2",
		"a block header":       "admin_token: |hunter2",
		"a line break":         "admin_token: |\n  hunter2-hunter2-hunter2\n",
		"a space":              `admin_token: "hunter2 hunter2 hunter2"`,
		"a wrong escape":       `admin_token: "\hunter2"`,
		"no end":               `admin_token: "hunter2`,
		"a colon":              "admin_token: hunter2: hunter2",
		"a reserved character": "admin_token: @hunter2",
		"a comment":            "admin_token: #hunter2",
		"malformed":            "admin_token: ${hunter2",
		"a name in it":         "admin_token: x${hunter2}",
		"in the next line":     "admin_token: x\n  hunter2: y",
		"a wrong indentation":  "admin_token:\nhunter2",
		"in a URL":             `upstreams: {x: {targets: ["http://u:hunter2@h"]}}`,
		"in a URL of Redis":    `store: {redis: {addrs: ["redis://u:hunter2@h"]}}`,
		"in a wrong URL of it": `store: {redis: {url: "redis://u:hunter2@h/x"}}`,
		"as Redis":             "store: {redis: hunter2}",
		"beside the password":  "store: {redis: {password: 42424242, username: [hunter2]}}",
	}
	for name, text := range mistakes {
		t.Run(name, func(t *testing.T) {
			_, err := config.Parse("f", []byte(text), noEnv)
			if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "4242") {
				t.Errorf("the error is missing or shows the secret: %v", err)
			}
		})
	}
}

// TestNoValueOfTheEnvironmentIsInAMessage: a value in the wrong place may be a
// secret of another one.
func TestNoValueOfTheEnvironmentIsInAMessage(t *testing.T) {
	env := envOf(map[string]string{"S": marker, "PATTERN": "GET /" + marker + "/{", "PATH": "/" + marker})
	for _, text := range []string{
		"listen: $S", "store: {timeout: $S, lookup: $S, cache: {entries: $S}, redis: {db: $S, prefix: $S, addrs: [$S, $S]}}",
		"client_address: {trusted_proxies: [$S], header: $S/}", "token: {prefix: $S}", "limits: {key: {rate: $S, burst: $S}, max_body: $S}",
		"delegation: {inherit_ips: $S}", "log: {level: $S}", "upstreams: {x: {targets: [$S], timeout: $S}}",
		"products: {x: {actions: [$S, $S]}}\nroutes: [{match: GET /x, permission: 'x:y', upstream: $S}]",
		"routes: [{match: $PATTERN, permission: $S}]",
		"routes: [{match: $PATH, by_method: {GET: $S}}, {match: $PATH, by_method: {GET: $S}}]",
		"routes: [{match: GET $PATH, permission: $S}, {match: 'GET /{x}', permission: $S}]",
		"routes: [{match: GET $PATH, permission: $S}, {match: GET $PATH, permission: $S}]",
	} {
		for _, name := range []string{"S", "PATTERN", "PATH"} {
			text = strings.ReplaceAll(text, "GET $"+name, `"GET ${`+name+`}"`)
			text = strings.ReplaceAll(text, "$"+name+"/", `"${`+name+`}/"`)
			text = strings.ReplaceAll(text, "$"+name, `"${`+name+`}"`)
		}
		_, err := config.Parse("f", []byte(text), env)
		if err == nil || strings.Contains(err.Error(), marker) {
			t.Errorf("the error of %s is missing or shows the value: %v", text, err)
		}
	}
}
