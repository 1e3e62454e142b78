package main_test

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// chromium is the one browser of the tests; each has a context of its own in it,
// with its own cookies.
var chromium struct {
	once sync.Once
	ctx  context.Context
	stop []context.CancelFunc
	err  error
}

func startChromium() {
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.WSURLReadTimeout(time.Minute))
	allocator, stopAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, stop := chromedp.NewContext(allocator)
	chromium.ctx, chromium.stop = ctx, []context.CancelFunc{stop, stopAllocator}
	chromium.err = chromedp.Do(ctx)
}

// stopChromium is for TestMain.
func stopChromium() {
	for _, stop := range chromium.stop {
		stop()
	}
}

// screen is how a tab shows pages.
type screen struct {
	width, height int64
	dark          bool
	// noScript: JavaScript is off.
	noScript bool
}

var (
	wide   = screen{width: 1280, height: 900}
	narrow = screen{width: 360, height: 740}
)

// tab is one page in a browser of its own. A test fails whose page throws,
// is refused something by its policy, or opens a dialogue that nobody awaits.
type tab struct {
	t    *testing.T
	ctx  context.Context
	base string

	mu      sync.Mutex
	faults  []string
	dialogs []string
	// leaves: it is asked before a page is left, and said yes to.
	leaves bool
}

// openTab opens a tab for the pages of a gateway.
func openTab(t *testing.T, base string, s screen) *tab {
	t.Helper()
	if _, err := exec.LookPath("chromium"); err != nil {
		lack(t, "chromium")
	}
	chromium.once.Do(startChromium)
	if chromium.err != nil {
		t.Fatal(chromium.err)
	}
	ctx, stop := chromedp.NewContext(chromium.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(stop)
	b := &tab{t: t, ctx: ctx, base: base}
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatal(err)
	}
	scheme := "light"
	if s.dark {
		scheme = "dark"
	}
	b.run(
		call(network.Enable, network.EnableParams{}), call(log.Enable, cdp.Empty{}),
		chromedp.EmulateViewport(s.width, s.height),
		call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
		}}),
		call(emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "Europe/Berlin"}),
		call(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: s.noScript}),
	)
	t.Cleanup(func() {
		for _, fault := range b.heard() {
			t.Errorf("the browser: %s", fault)
		}
		if t.Failed() {
			t.Logf("the page was %s", b.where())
		}
	})
	return b
}

// call is an action that runs one command of the browser.
func call[P, R any](c cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, c, params)
		return err
	})
}

func (b *tab) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		b.faults = append(b.faults, fmt.Sprintf("thrown: %s %v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
	case *log.EventEntryAdded:
		// A status of 4xx is an entry too; pages that are refused have one.
		if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork {
			b.faults = append(b.faults, fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		}
	case *page.EventJavascriptDialogOpening:
		b.dialogs = append(b.dialogs, string(e.Type)+": "+e.Message)
		accept := e.Type == page.DialogTypeBeforeunload && b.leaves
		if !accept && e.Type != page.DialogTypeBeforeunload {
			b.faults = append(b.faults, "a dialogue: "+e.Message)
		}
		go func() { // ends with the context: the event loop must not wait for itself
			_ = chromedp.Do(b.ctx, call(page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{Accept: accept}))
		}()
	}
}

// heard returns what went wrong in the page so far.
func (b *tab) heard() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.faults...)
}

// forgives forgets what went wrong so far: it was to.
func (b *tab) forgives() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = nil
}

// run does actions one after the other.
func (b *tab) run(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.ctx, patience)
	defer stop()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatalf("%v, on the page %s", err, b.where())
	}
}

// where is the address and the text of the page, for messages.
func (b *tab) where() string {
	ctx, stop := context.WithTimeout(b.ctx, 5*time.Second)
	defer stop()
	at, _ := chromedp.Run(ctx, chromedp.Location())                   // it is for a message alone
	text, _ := chromedp.Run(ctx, chromedp.Text(chromedp.CSS("body"))) // likewise
	return at + "\n" + text
}

// ask returns what the action finds in the page.
func ask[T any](b *tab, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.ctx, patience)
	defer stop()
	found, err := chromedp.Run(ctx, action)
	if err != nil {
		b.t.Fatalf("%v, on the page %s", err, b.where())
	}
	return found
}

// open goes to a page of the gateway.
func (b *tab) open(path string) {
	b.t.Helper()
	b.run(chromedp.Navigate(b.base + path))
}

// at checks where the browser is, once it has got there.
func (b *tab) at(path string) {
	b.t.Helper()
	eventually(b.t, patience, "the browser comes to "+path, func() error {
		return unless(strings.HasPrefix(b.location(), b.base+path), "it is at "+b.location())
	})
	b.run(chromedp.WaitReady(chromedp.CSS("body")))
}

func (b *tab) location() string {
	b.t.Helper()
	return ask(b, chromedp.Location())
}

// click clicks on what has that text: a link, a button, a menu.
func (b *tab) click(text string) {
	b.t.Helper()
	b.run(chromedp.Click(clickable(text)))
}

// clickable finds the first visible control by its text or its label.
func clickable(text string) string {
	quoted := xpathString(text)
	return fmt.Sprintf(`//*[self::a or self::button or self::summary or self::label][normalize-space(.)=%[1]s or @aria-label=%[1]s][not(ancestor::details[not(@open)]) or self::summary]`, quoted)
}

// xpathString: XPath has no escapes.
func xpathString(s string) string {
	if !strings.Contains(s, `"`) {
		return `"` + s + `"`
	}
	return `'` + s + `'`
}

// labelled finds the field that the label names.
func labelled(label string) string {
	return fmt.Sprintf(`//*[@id=//label[starts-with(normalize-space(.), %s)]/@for]`, xpathString(label))
}

// fill writes into the field of that label, in the place of what is there.
func (b *tab) fill(label, value string) {
	b.t.Helper()
	b.run(focus(labelled(label)), chromedp.Evaluate[chromedp.Void](`document.activeElement.select()`), chromedp.KeyEvent(kb.Delete+value))
}

// focus puts the focus into a field that is shown. Keys are sent to whatever has
// it: chromedp.SendKeys reads attributes of the field while events write them.
func focus[S chromedp.Selectable](field S) chromedp.Action[chromedp.Void] {
	return chromedp.Focus(field, chromedp.NodeVisible)
}

// text is what the page shows.
func (b *tab) text() string {
	b.t.Helper()
	return ask(b, chromedp.Text(chromedp.CSS("body")))
}

// shows waits until the page shows the text.
func (b *tab) shows(text string) {
	b.t.Helper()
	eventually(b.t, patience, fmt.Sprintf("the page shows %q", text), func() error {
		now := b.where() // a page that is just being left has no text
		return unless(strings.Contains(now, text), now)
	})
}

// script returns what the expression is in the page.
func script[T any](b *tab, expression string) T {
	b.t.Helper()
	return ask(b, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// press sends keys to whatever has the focus.
func (b *tab) press(keys string) {
	b.t.Helper()
	b.run(chromedp.KeyEvent(keys))
}

// signIn signs in as a user of the gateway.
func (b *tab) signIn(email, password string) {
	b.t.Helper()
	b.open("/dashboard/sign-in")
	b.fill("E-mail address", email)
	b.fill("Password", password)
	b.click("Sign in")
	b.at("/dashboard/keys")
}

// comesFrom has a trusted proxy say where the browser is.
func (b *tab) comesFrom(address string) {
	b.t.Helper()
	b.run(call(network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"X-Forwarded-For": address}}))
}

// axeSource is axe-core, which .ci/deps installs.
func axeSource(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile(filepath.Join("testdata", "browser", "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		lack(t, "axe-core")
	}
	return string(source)
}

// isAccessible has axe-core look at the page.
func (b *tab) isAccessible(name string) {
	b.t.Helper()
	b.run(chromedp.Evaluate[chromedp.Void](axeSource(b.t)))
	type violation struct {
		ID, Help string
		Nodes    []struct{ HTML, FailureSummary string }
	}
	found := script[[]violation](b, `axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]})
		.then((result) => result.violations.map((v) => ({ID: v.id, Help: v.help, Nodes: v.nodes.map((n) => ({HTML: n.html, FailureSummary: n.failureSummary}))})))`)
	for _, v := range found {
		for _, n := range v.Nodes {
			b.t.Errorf("%s: %s: %s\n%s\n%s", name, v.ID, v.Help, n.HTML, n.FailureSummary)
		}
	}
}

// fits checks that the page is no wider than the screen.
func (b *tab) fits(name string) {
	b.t.Helper()
	if wide := script[int](b, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); wide > 0 {
		b.t.Errorf("%s is %d pixels wider than the screen", name, wide)
	}
}

// picture writes what the whole page looks like to a file, as small as it can be.
func (b *tab) picture(file string) {
	b.t.Helper()
	shot, err := png.Decode(bytes.NewReader(ask(b, chromedp.FullScreenshot(100))))
	if err != nil {
		b.t.Fatal(err)
	}
	var small bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	if err := encoder.Encode(&small, shot); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(file, small.Bytes(), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// textOf is the text of what the selector finds.
func textOf(selector string) chromedp.Action[string] { return chromedp.Text(chromedp.CSS(selector)) }
