package keystore_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// childEnv names the file in which the child process makes and revokes keys.
const childEnv = "GATEHOUSE_TEST_CHILD"

func childOptions(file string) keystore.Options {
	catalogue, err := policy.NewCatalogue(read, write, other)
	if err != nil {
		panic(err)
	}
	return keystore.Options{
		EmbeddedFile: file, Prefix: "gatehouse:", Timeout: 10 * time.Second, Mode: keystore.Strict, CacheEntries: 1000,
		Catalogue: catalogue, TokenPrefix: "gk_", MaxKeys: 100_000, Now: time.Now, Log: zap.NewNop(), Create: true,
	}
}

// child creates and revokes keys, and says so, until it is killed.
func child(file string) {
	ctx := context.Background()
	fail := func(err error) {
		if err != nil {
			_, _ = fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	s, err := keystore.Open(ctx, childOptions(file))
	fail(err)
	_, _, err = s.PutAccount(ctx, policy.Caller{}, keystore.Account{ID: "acme", Permissions: []string{"*"}})
	fail(err)
	rules, err := s.Rules(ctx, "acme")
	fail(err)
	person := policy.Caller{Account: rules}
	for i := 0; ; i++ {
		k, token, err := s.Create(ctx, person, newKey())
		fail(err)
		_, _ = fmt.Fprintf(os.Stdout, "created %s %s\n", k.ID, token.Reveal())
		if i%4 != 0 {
			_, _ = fmt.Fprintf(os.Stdout, "revoking %s\n", k.ID)
			_, err := s.Revoke(ctx, person, k.ID)
			fail(err)
			_, _ = fmt.Fprintf(os.Stdout, "revoked %s\n", k.ID)
		}
	}
}

// A process that is killed at any moment has kept what it acknowledged: keys
// that were created work, and keys that were revoked do not.
func TestKilledProcessLosesNothing(t *testing.T) {
	t.Parallel()
	file := filepath.Join(memoryDir(t), "gatehouse.db")
	created, revoking, revoked := map[string]string{}, map[string]bool{}, map[string]bool{}
	few := func() bool { return len(created) < 20 || len(revoked) < 10 }
	const least, most = 8, 60 // a busy machine gets little done in a round
	for round := 0; round < least || few() && round < most; round++ {
		killChild(t, file, func(line string) {
			word, rest, _ := strings.Cut(line, " ")
			switch id, secret, _ := strings.Cut(rest, " "); word {
			case "created":
				created[id] = secret
			case "revoking":
				revoking[id] = true
			case "revoked":
				revoked[id] = true
			}
		})
		s, err := keystore.Open(t.Context(), childOptions(file))
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for id, secret := range created {
			token, err := keystore.ParseToken("gk_", secret)
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Lookup(t.Context(), token)
			switch {
			case revoked[id] && !unknown(err):
				t.Errorf("round %d: a revoked key works: %v", round, err)
			case !revoking[id] && err != nil:
				t.Errorf("round %d: a created key does not work: %v", round, err)
			case err != nil && !unknown(err):
				t.Errorf("round %d: %v", round, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if few() {
		t.Errorf("only %d created and %d revoked: nothing was tested", len(created), len(revoked))
	}
	t.Logf("%d created, %d revoked", len(created), len(revoked))
}

// killChild runs the child and kills it some time after its first words.
func killChild(t *testing.T, file string, said func(line string)) {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(executable)
	cmd.Env = append(os.Environ(), childEnv+"="+file)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	first := true
	for lines.Scan() {
		said(lines.Text())
		if first {
			first = false
			after := time.Duration(rand.IntN(400_000)) * time.Microsecond
			time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
	}
	if err := cmd.Wait(); first || err == nil {
		t.Fatalf("the child said nothing: %v", err)
	}
}
