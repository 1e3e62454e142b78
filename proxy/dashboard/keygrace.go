package dashboard

import (
	"errors"
	"net/url"
	"strconv"
	"time"

	"gatehouse/proxy/contract"
	"gatehouse/proxy/problem"
)

// graceForm is for how long the token of a replaced key is to go on working:
// one of a few choices, in seconds, or another time.
type graceForm struct {
	Choice       string // seconds, or graceOther
	Amount, Unit string
}

// graceOther is the choice of a time that is not in the list.
const graceOther = "other"

// Choices are the times in the list.
func (graceForm) Choices() []listOption {
	return []listOption{
		{Value: "0", Label: "None: it stops working at once"},
		{Value: "3600", Label: "1 hour"},
		{Value: "86400", Label: "1 day"},
		{Value: "604800", Label: "7 days"},
	}
}

// Units are what another time can be counted in: the seconds of each.
func (g graceForm) Units() []listOption {
	list := []listOption{{Value: "60", Label: "minutes"}, {Value: "3600", Label: "hours"}, {Value: "86400", Label: "days"}, {Value: "1", Label: "seconds"}}
	for i := range list {
		list[i].Selected = list[i].Value == g.Unit
	}
	return list
}

// maxGraceInput bounds what is shown again of a number that was typed.
const maxGraceInput = 20

func readGrace(form url.Values) graceForm {
	return graceForm{Choice: form.Get("grace"), Amount: firstCharacters(form.Get("grace_amount"), maxGraceInput), Unit: form.Get("grace_unit")}
}

// duration is the time that was chosen, or what is wrong with it. How long it
// may be is for the key API to say.
func (g graceForm) duration() (grace time.Duration, fault string) {
	seconds, ok := g.seconds()
	if !ok && g.Choice == graceOther {
		return 0, "Enter the grace period as a whole number."
	}
	if !ok {
		return 0, "Choose a grace period."
	}
	grace, err := contract.RegenerateKey{GracePeriodSeconds: contract.Given[int64]{Present: true, Value: seconds}}.Parse()
	var wrong *problem.Problem
	if errors.As(err, &wrong) && len(wrong.Fields) > 0 {
		return 0, wrong.Fields[0].Detail
	}
	return grace, ""
}

// seconds reads what was chosen.
func (g graceForm) seconds() (n int64, ok bool) {
	if g.Choice != graceOther {
		return readSeconds(g.Choice)
	}
	for _, u := range g.Units() {
		if u.Value == g.Unit {
			unit, _ := readSeconds(u.Value)
			n, ok = readSeconds(g.Amount)
			return n * unit, ok
		}
	}
	return 0, false
}

// readSeconds reads a whole number. One that is far too large stays too large,
// and can still be multiplied.
func readSeconds(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 32)
	return n, err == nil || errors.Is(err, strconv.ErrRange)
}
