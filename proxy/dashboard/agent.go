package dashboard

import "strings"

// agentWord is what a User-Agent says by having that text in it. The first that
// is there counts: browsers name those that they are like, too.
type agentWord struct{ text, name string }

// browserOf says in words what sent such a User-Agent: "Firefox on Linux". It
// is what a person recognises, and no fact: anybody can send any.
func browserOf(agent string) string {
	browser := firstWord(agent, []agentWord{
		{"Edg", "Edge"},
		{"OPR/", "Opera"},
		{"SamsungBrowser/", "Samsung Internet"},
		{"Vivaldi/", "Vivaldi"},
		{"FxiOS/", "Firefox"},
		{"Firefox/", "Firefox"},
		{"CriOS/", "Chrome"},
		{"HeadlessChrome/", "Chrome"},
		{"Chrome/", "Chrome"},
		{"Safari/", "Safari"},
	})
	system := firstWord(agent, []agentWord{
		{"iPhone", "an iPhone"}, {"iPad", "an iPad"}, {"Android", "Android"}, {"CrOS", "ChromeOS"}, {"Windows", "Windows"}, {"Macintosh", "a Mac"}, {"Linux", "Linux"},
	})
	switch {
	case browser == "" && system == "":
		return "An unknown browser"
	case browser == "":
		return "A browser on " + system
	case system == "":
		return browser
	}
	return browser + " on " + system
}

func firstWord(agent string, words []agentWord) string {
	for _, w := range words {
		if strings.Contains(agent, w.text) {
			return w.name
		}
	}
	return ""
}
