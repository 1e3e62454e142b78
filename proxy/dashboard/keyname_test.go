package dashboard_test

import (
	"net/http"
	"net/url"
	"testing"
)

// TestNameThatIsNoText is refused at its field, and the form stays good.
func TestNameThatIsNoText(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	form := s.newForm(url.Values{"name": {"CI \xff"}})
	const says = "The name holds something that is no text (UTF-8)."
	s.wants(s.post(newKeyPath, form), http.StatusUnprocessableEntity, says, `href="#name"`)
	form.Set("name", "CI")
	s.wants(s.post(newKeyPath, form), http.StatusOK, "only this once")
	k := s.keys()[0]
	edit := shownForm(t, s.get(editPath(k)))
	edit.Set("name", "CI \xff")
	s.wants(s.post(editPath(k), edit), http.StatusUnprocessableEntity, says)
	if got := s.stored(k).Name; got != "CI" {
		t.Errorf("it is called %q", got)
	}
}
