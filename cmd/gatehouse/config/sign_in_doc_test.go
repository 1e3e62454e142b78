package config_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestExamplesOfTheSignInGuideAreValid: each is a configuration beside the
// settings that every one needs.
func TestExamplesOfTheSignInGuideAreValid(t *testing.T) {
	text, err := os.ReadFile("../../../docs/sign-in.md")
	if err != nil {
		t.Fatal(err)
	}
	secrets := envOf(map[string]string{"ACME_SSO_SECRET": "a", "CUSTOMERS_SECRET": "b", "PARTNERS_SECRET": "c"})
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	providers := 0
	for _, block := range blocks {
		c := mustParse(t, minimal+"\n"+block[1], secrets)
		providers += len(c.Dashboard.Providers)
		for _, p := range c.Dashboard.Providers {
			if p.ClientSecret == "" || strings.Contains(string(p.ClientSecret), "$") {
				t.Errorf("%s has no secret", p.Name)
			}
		}
	}
	if providers != 3 {
		t.Errorf("the guide has %d providers", providers)
	}
}
