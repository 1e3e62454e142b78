package dashboard

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// usageSpan is what a chart shows: so many hours, or days, until now.
type usageSpan struct {
	Name, Label string
	unit        string
	step        keystore.UsageStep
	length      time.Duration
	count       int
	// One in so many bars has a tick, and one in so many on a narrow screen.
	every, narrow int
	tick, title   string // layouts
}

func usageSpans() []usageSpan {
	return []usageSpan{
		{"24h", "24 hours", "hour", keystore.ByHour, time.Hour, 24, 3, 6, "15:04", "2 Jan, 15:04"},
		{"30d", "30 days", "day", keystore.ByDay, 24 * time.Hour, 30, 3, 7, "2 Jan", "2 Jan 2006"},
	}
}

func usageSpanNamed(name string) usageSpan {
	for _, s := range usageSpans() {
		if s.Name == name {
			return s
		}
	}
	return usageSpans()[0]
}

// usageChart is how many requests there were, as a chart and as a table.
type usageChart struct {
	Span   usageSpan
	Spans  []usageSpan
	Totals usageTotals
	// Groups are those that there were requests of.
	Groups []groupTotal
	Bars   []usageBar
	Lines  []gridLine
	// Summary says in a sentence what the chart shows.
	Summary string
}

type usageTotals struct{ All, Allowed, Refused, Failed int64 }

// groupSums are requests by group.
type groupSums map[outcomeGroup]int64

type groupTotal struct {
	Class    outcomeGroup
	Label    string
	Requests int64
}

// usageBar is an hour or a day. Places are in per cent across and in pixels down.
type usageBar struct {
	At                   time.Time
	Name, Title          string
	Tick                 string // "" where none is shown
	Minor                bool   // the tick is not shown on a narrow screen
	Left, Middle, Across string
	Parts                []barPart
	Counts               []int64 // by group, as in Groups
	Total                int64
}

type barPart struct {
	Class     outcomeGroup
	Y, Height string
}

type gridLine struct{ Y, TextY, Label string }

// usageOf reads and draws how the key was used.
func (d *Dashboard) usageOf(v *visit, id policy.KeyID) (*usageChart, error) {
	span := usageSpanNamed(v.r.URL.Query().Get("period"))
	u, err := d.usageIn(v, id, span)
	if err != nil {
		return nil, err
	}
	c := &usageChart{Span: span, Spans: usageSpans(), Totals: u.totals}
	for _, g := range outcomeGroups() {
		if u.all[g] > 0 {
			c.Groups = append(c.Groups, groupTotal{g, g.Label(), u.all[g]})
		}
	}
	c.draw(u.first, u.sums)
	c.Summary = c.summarize()
	return c, nil
}

// spanUsage is how a key was used in a span that began with first: by group in
// each hour or day, in all of them, and in total.
type spanUsage struct {
	first  time.Time
	sums   []groupSums
	all    groupSums
	totals usageTotals
}

// usageIn reads how the key was used in the span.
func (d *Dashboard) usageIn(v *visit, id policy.KeyID, span usageSpan) (spanUsage, error) {
	now := d.o.Now().UTC()
	u := spanUsage{first: now.Truncate(span.length).Add(-time.Duration(span.count-1) * span.length), sums: make([]groupSums, span.count), all: make(groupSums)}
	rows, err := d.o.Store.Usage(v.r.Context(), v.caller, keystore.UsageFilter{Key: id, Step: span.step, From: u.first, To: now.Add(time.Second)})
	if err != nil {
		return spanUsage{}, err
	}
	for i := range u.sums {
		u.sums[i] = make(groupSums)
	}
	for _, row := range rows {
		if i := int(row.At.Sub(u.first) / span.length); i >= 0 && i < span.count {
			u.sums[i][groupOf(row.Outcome)] += row.Requests
			u.all[groupOf(row.Outcome)] += row.Requests
			u.totals.add(groupOf(row.Outcome), row.Requests)
		}
	}
	return u, nil
}

func (t *usageTotals) add(g outcomeGroup, requests int64) {
	t.All += requests
	switch {
	case g == groupAllowed:
		t.Allowed += requests
	case g.refused():
		t.Refused += requests
	default:
		t.Failed += requests
	}
}

// The chart's height is that of its style sheet, in pixels: room for a label
// over the highest bar, the bars, and the ticks below.
const (
	chartTop    = 14.0
	chartHeight = 180.0
	// minPart is the least height of what is there at all: one refusal among
	// thousands is to be seen.
	minPart = 2.0
	// barShare is how much of its place a bar takes.
	barShare = 0.72
)

// draw places the bars.
func (c *usageChart) draw(first time.Time, sums []groupSums) {
	for i, sum := range sums {
		at := first.Add(time.Duration(i) * c.Span.length)
		bar := usageBar{At: at, Name: at.Format(c.Span.title)}
		for _, g := range c.Groups {
			bar.Counts = append(bar.Counts, sum[g.Class])
			bar.Total += sum[g.Class]
		}
		c.Bars = append(c.Bars, bar)
	}
	top, step := scaleFor(c.highest().Total)
	for n := int64(0); n <= top; n += step {
		y := chartTop + chartHeight*(1-float64(n)/float64(top))
		c.Lines = append(c.Lines, gridLine{pixels(y), pixels(y + 4), compact(n)})
	}
	place := 100 / float64(len(c.Bars))
	for i := range c.Bars {
		bar := &c.Bars[i]
		left := place * float64(i)
		bar.Left, bar.Across, bar.Middle = percent(left+place*(1-barShare)/2), percent(place*barShare), percent(left+place/2)
		if fromEnd := len(c.Bars) - 1 - i; fromEnd%c.Span.every == 0 {
			bar.Tick, bar.Minor = bar.At.Format(c.Span.tick), fromEnd%c.Span.narrow != 0
		}
		bar.stack(c.Groups, top)
	}
}

func (c *usageChart) highest() usageBar {
	return slices.MaxFunc(c.Bars, func(a, b usageBar) int { return cmp.Compare(a.Total, b.Total) })
}

// stack puts the groups of the bar one upon the other.
func (b *usageBar) stack(groups []groupTotal, top int64) {
	y := chartTop + chartHeight
	for i, n := range b.Counts {
		if n > 0 {
			height := max(minPart, chartHeight*float64(n)/float64(top))
			y -= height
			b.Parts = append(b.Parts, barPart{groups[i].Class, pixels(y), pixels(height)})
		}
	}
	b.Title = b.Name + ": " + requests(b.Total)
	for i, n := range b.Counts {
		if n > 0 {
			b.Title += "; " + groups[i].Label + " " + number(n)
		}
	}
}

// scaleFor returns a round number that is no less than most, and the distance
// of some four lines up to it.
func scaleFor(most int64) (top, step int64) {
	step = 1
	for factors, i := []int64{2, 5, 10}, 0; step*4 < most; i++ {
		power := int64(1)
		for range i / len(factors) {
			power *= 10
		}
		step = factors[i%len(factors)] * power
	}
	return max(1, (most+step-1)/step) * step, step
}

func (c *usageChart) summarize() string {
	if c.Totals.All == 0 {
		return "No requests in the last " + c.Span.Label + "."
	}
	parts := make([]string, 0, len(c.Groups))
	for _, g := range c.Groups {
		parts = append(parts, g.Label+" "+number(g.Requests))
	}
	most := c.highest()
	return fmt.Sprintf("%s in the last %s by outcome. %s. The most in one %s: %s, at %s UTC.",
		requests(c.Totals.All), c.Span.Label, strings.Join(parts, ", "), c.Span.unit, number(most.Total), most.At.Format(c.Span.title))
}

func requests(n int64) string {
	switch n {
	case 0:
		return "no requests"
	case 1:
		return "1 request"
	}
	return number(n) + " requests"
}

// compact spells a round number for a scale: 1.5k, 2M.
func compact(n int64) string {
	for _, unit := range []struct {
		size int64
		name string
	}{{1_000_000_000, "B"}, {1_000_000, "M"}, {1000, "k"}} {
		if n >= unit.size {
			return strconv.FormatFloat(float64(n)/float64(unit.size), 'f', -1, 64) + unit.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func pixels(f float64) string { return strconv.FormatFloat(f, 'f', 1, 64) }

func percent(f float64) string { return strconv.FormatFloat(f, 'f', 3, 64) + "%" }
