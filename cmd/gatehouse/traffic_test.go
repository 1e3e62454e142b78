package main_test

import (
	"bufio"
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	readPath  = "/serp/v1/search" // POST needs the right to write
	eventPath = "/events"
)

// use lets a key make a request at a node again and again, half of them keys
// that are never changed.
func (f *fleet) use(ctx context.Context, node int) {
	const atOnce = 64
	slots := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	defer all.Wait()
	tick := time.NewTicker(f.pace)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		select {
		case slots <- struct{}{}:
		default: // the node hangs
			continue
		}
		s := f.pick(n%2 == 0)
		all.Go(func() {
			f.try(ctx, node, s, !s.steady && rand.IntN(2) == 0)
			<-slots
		})
	}
}

// pick chooses a key that is never changed, or another. Of these the last ones are
// preferred.
func (f *fleet) pick(steady bool) *subject {
	f.mu.Lock()
	defer f.mu.Unlock()
	if steady || len(f.subjects) == 0 {
		return f.steady[rand.IntN(len(f.steady))]
	}
	const last = 50
	from := 0
	if rand.IntN(2) == 0 {
		from = max(0, len(f.subjects)-last)
	}
	return f.subjects[from+rand.IntN(len(f.subjects)-from)]
}

// try makes one request and judges what became of it.
func (f *fleet) try(ctx context.Context, node int, s *subject, writes bool) (passed bool) {
	method := http.MethodGet
	if writes {
		method = http.MethodPost
	}
	nonce, arrived := f.recorder.expect()
	a := attempt{subject: s, node: node, writes: writes, began: time.Now()}
	got := f.ask(ctx, node, method, "http://"+f.gateways[node].addr+readPath, nil, "Api-Token", s.Token, nonceHeader, nonce)
	a.ended = time.Now()
	if got.hungUp {
		arrived()
		return false // the test ends
	}
	reached := arrived()
	f.judge(a, reached, got)
	return reached && got.status == http.StatusOK
}

// listen holds an event stream at a node, and another when that ends. It stays
// at one whose key had a right taken until the gateway ends it.
func (f *fleet) listen(ctx context.Context, node int) {
	const stays = 3 * time.Second
	for ctx.Err() == nil {
		s := f.pick(false)
		if has, _ := s.has(toExist); !has {
			continue
		}
		f.stream(ctx, node, s, stays)
		pause := time.NewTimer(100 * time.Millisecond) // the node may be away
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
	}
}

// stream reads the events of one stream and judges each as a request of the
// moment in which the backend sent it.
func (f *fleet) stream(ctx context.Context, node int, s *subject, stays time.Duration) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+f.gateways[node].addr+eventPath, nil)
	if err != nil {
		return
	}
	r.Header.Set("Api-Token", s.Token)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: 10 * time.Second}}
	response, err := client.Do(r)
	if err != nil {
		return
	}
	defer func() { _ = response.Body.Close() }() // it may be broken off
	if response.StatusCode != http.StatusOK {
		return
	}
	begun := time.Now()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		text, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		nanos, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return
		}
		sent := time.Unix(0, nanos)
		a := attempt{subject: s, node: node, began: sent, ended: sent}
		if wrong, since, taken := a.mustRefuse(f.streamWithin); wrong {
			f.wrong(&f.findings.letThrough, "stream of %s goes on: node %d, %s after a right was taken; %s", s.ID, node, since.Round(time.Millisecond), s.history())
			return
		} else if taken {
			f.late(a, since)
		}
		if time.Since(begun) > stays && !s.wasTaken() {
			return
		}
	}
}

// streamWithin is the bound of what was let in before: at the node that
// acknowledged a change it is as at any that is connected.
func (f *fleet) streamWithin(d deed, a attempt) time.Duration {
	if f.trouble(d.ended, a.began) {
		return worstBound
	}
	return connectedBound * slack
}

// warm has every node see every key that is never changed.
func (f *fleet) warm(ctx context.Context) {
	var all sync.WaitGroup
	for node := range f.gateways {
		all.Go(func() {
			for _, s := range f.steady {
				f.try(ctx, node, s, false)
			}
		})
	}
	all.Wait()
}
