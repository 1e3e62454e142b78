package contract_test

import (
	"errors"
	"fmt"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"gatehouse/keystore"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/problem"
)

// decoders read a body of each kind to the end, fields and all.
func decoders(t testing.TB) map[string]func(body string) error {
	t.Helper()
	c, a := catalogue(t), account()
	return map[string]func(body string) error{
		"create": func(body string) error {
			k, err := readKey(post(strings.NewReader(body)))
			if err == nil {
				_, err = k.Parse(a, c, now)
			}
			return err
		},
		"update": func(body string) error {
			_, err := readUpdate(t, body)
			return err
		},
		"regenerate": func(body string) error {
			_, err := readRegeneration(body)
			return err
		},
		"account": func(body string) error {
			k, err := readAccount(post(strings.NewReader(body)))
			if err == nil {
				_, err = k.Parse("acme", c, products, plans)
			}
			return err
		},
	}
}

// fill repeats the part between head and tail up to so many bytes.
func fill(size int, head, part, tail string) string {
	n := (size - len(head) - len(tail)) / len(part)
	body := head + strings.Repeat(part, n) + tail
	return body + strings.Repeat(" ", size-len(body))
}

// manyMembers is an object with as many members as fit, none of them twice.
func manyMembers(size int, head, tail string) string {
	var body strings.Builder
	body.WriteString(head + `"0":0`)
	for i := 1; body.Len() < size-20-len(tail); i++ {
		fmt.Fprintf(&body, `,"%x":0`, i)
	}
	return body.String() + tail
}

// TestHostileBody: whatever a body holds, it is refused with a 4xx that names
// the field where one can be named, and at most 20 of them.
func TestHostileBody(t *testing.T) {
	t.Parallel()
	const keyLimit, all = contract.KeyBodyLimit, "create update regenerate account"
	list := func(field, element string, n int) string {
		return `{"` + field + `":[` + strings.TrimSuffix(strings.Repeat(element+",", n), ",") + `]}`
	}
	with := func(field, value string) string { return `{"` + field + `":` + value + `}` }
	name := func(value string) string { return with("name", `"`+value+`"`) }
	rows := []struct {
		name, to, body string
		code           problem.Code
		field          string
	}{
		{"spaces and no end", all, fill(keyLimit, "{", " ", ""), problem.InvalidRequest, ""},
		{"a long unknown field", all, fill(keyLimit, `{"`, "x", `":1}`), problem.ValidationFailed, strings.Repeat("x", 100) + "…"},
		{"thousands of unknown fields", all, manyMembers(keyLimit, "{", "}"), problem.ValidationFailed, "0"},
		{"thousands of fields in a name", "create update account", manyMembers(keyLimit, `{"name":{`, "}}"), problem.ValidationFailed, "name"},
		{"thousands of fields in a grace", "regenerate", manyMembers(keyLimit, `{"grace_period_seconds":{`, "}}"), problem.ValidationFailed, "grace_period_seconds"},
		{"too long a name", "create update account", fill(keyLimit, `{"name":"`, "x", `"}`), problem.ValidationFailed, "name"},
		{"one byte more than there may be", "create update regenerate", fill(keyLimit+1, "{}", " ", ""), problem.BodyTooLarge, ""},
		{"one byte more than an account may have", "account", fill(contract.AccountBodyLimit+1, "{}", " ", ""), problem.BodyTooLarge, ""},
		{"much more", all, fill(3<<20, "{}", " ", ""), problem.BodyTooLarge, ""},

		{"10,000 permissions", "create update account", list("permissions", `"x"`, 10_000), problem.ValidationFailed, "permissions[0]"},
		{"10,000 subaccounts", "create update", list("allowed_subaccounts", `"x"`, 10_000), problem.ValidationFailed, "allowed_subaccounts[0]"},
		{"10,000 addresses", "create update", list("allowed_ips", `"::"`, 10_000), problem.ValidationFailed, "allowed_ips"},
		{"10,000 subaccounts of an account", "account", list("subaccounts", `{}`, 10_000), problem.ValidationFailed, "subaccounts[0].id"},
		{"10,000 times null", "account", list("subaccounts", `null`, 10_000), problem.ValidationFailed, "subaccounts[0]"},
		{"10,000 numbers", "create update account", list("permissions", `1`, 10_000), problem.ValidationFailed, "permissions[0]"},

		{"10,000 lists deep", all, strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000), problem.ValidationFailed, "body"},
		{"10,000 objects deep", all, strings.Repeat(`{"a":`, 10_000) + "1" + strings.Repeat("}", 10_000), problem.ValidationFailed, "a"},
		{"10,000 lists deep in permissions", "create update account", with("permissions", strings.Repeat("[", 10_000)+strings.Repeat("]", 10_000)), problem.InvalidRequest, ""},
		{"10,000 lists deep in a name", "create update account", with("name", strings.Repeat("[", 9_000)+strings.Repeat("]", 9_000)), problem.ValidationFailed, "name"},
		{"lists without an end", all, strings.Repeat("[", keyLimit), problem.ValidationFailed, "body"},

		{"a member twice", "create update account", `{"name":"a","name":"a"}`, problem.InvalidRequest, ""},
		{"a member twice, once escaped", "create update account", `{"name":"a","n\u0061me":"b"}`, problem.InvalidRequest, ""},
		{"a grace twice", "regenerate", `{"grace_period_seconds":1,"grace_period_seconds":2}`, problem.InvalidRequest, ""},
		{"a member of a member twice", "account", `{"permissions":[],"subaccounts":[{"id":"a","id":"b"}]}`, problem.InvalidRequest, ""},

		{"invalid UTF-8", "create update account", name("\xff"), problem.InvalidRequest, ""},
		{"an overlong NUL", "create update account", name("\xc0\x80"), problem.InvalidRequest, ""},
		{"a surrogate in UTF-8", "create update account", name("\xed\xa0\x80"), problem.InvalidRequest, ""},
		{"a member of invalid UTF-8", all, "{\"\xff\":1}", problem.InvalidRequest, ""},
		{"a lone high surrogate", "create update account", name(`\ud800`), problem.InvalidRequest, ""},
		{"a lone low surrogate", "create update account", name(`\udfff`), problem.InvalidRequest, ""},
		{"two high surrogates", "create update account", name(`\ud800\ud800`), problem.InvalidRequest, ""},

		{"a name with NUL", "create update account", name(`a\u0000b`), problem.ValidationFailed, "name"},
		{"a name with a line break", "create update account", name(`a\r\nb`), problem.ValidationFailed, "name"},
		{"a name with an escape sequence", "create update account", name(`\u001b[31mred`), problem.ValidationFailed, "name"},
		{"a name with an upper control character", "create update account", name(`a\u009bb`), problem.ValidationFailed, "name"},
		{"a name that runs backwards", "create update account", name(`a\u202eb`), problem.ValidationFailed, "name"},
		{"a name with an isolate", "create update account", name(`a\u2067b`), problem.ValidationFailed, "name"},
		{"a name with an Arabic letter mark", "create update account", name(`a\u061cb`), problem.ValidationFailed, "name"},
		{"a name with a line separator", "create update account", name(`a\u2028b`), problem.ValidationFailed, "name"},
	}
	for _, number := range []string{
		"1e400", "-1e400", "1e-400", "1.5", "1900000000.0", "1e9", "1E+9", "18446744073709551616", "9223372036854775808", "-9223372036854775809",
		"-1", strings.Repeat("9", 60_000), "0." + strings.Repeat("9", 60_000), `"1900000000"`, "true", "{}", "[]",
	} {
		label := "the number " + number[:min(len(number), 22)]
		rows = append(rows, struct {
			name, to, body string
			code           problem.Code
			field          string
		}{label, "create update", with("expires_at", number), problem.ValidationFailed, "expires_at"}, struct {
			name, to, body string
			code           problem.Code
			field          string
		}{label, "regenerate", with("grace_period_seconds", number), problem.ValidationFailed, "grace_period_seconds"})
	}
	for _, seconds := range []string{"0", "-0", "253402300800", "9223372036854775807", "-9223372036854775808", "1790000000000000"} {
		rows = append(rows, struct {
			name, to, body string
			code           problem.Code
			field          string
		}{"expiring at " + seconds, "create update", with("expires_at", seconds), problem.ValidationFailed, "expires_at"})
	}
	for _, cidr := range []string{
		"1.2.3.4/33", "1.2.3.4/-1", "1.2.3.4/", "/8", "1.2.3.4/08", "1.2.3.4/8/8", "01.2.3.4", "1.2.3", "1.2.3.4.5", "256.1.1.1", "::/129", ":::", "fe80::1%eth0",
		"::ffff:1.2.3.4/100", "[::1]", "1.2.3.4:80", "0x7f.1", "127.1", "example.com", "*", " 1.2.3.4", "1.2.3.4\\u0000", "１.2.3.4", "",
	} {
		rows = append(rows, struct {
			name, to, body string
			code           problem.Code
			field          string
		}{"the address " + cidr, "create update", list("allowed_ips", `"`+cidr+`"`, 1), problem.ValidationFailed, "allowed_ips[0]"})
	}
	read := decoders(t)
	for _, row := range rows {
		for to := range strings.FieldsSeq(row.to) {
			t.Run(to+"/"+row.name, func(t *testing.T) {
				t.Parallel()
				err := read[to](row.body)
				checkRefused(t, err)
				var p *problem.Problem
				if !errors.As(err, &p) || p.Code != row.code {
					t.Fatalf("got %v, want %s", err, row.code)
				}
				named := slices.ContainsFunc(p.Fields, func(f problem.FieldError) bool { return f.Field == row.field })
				if named != (row.field != "") {
					t.Errorf("the fields are %v, want %s among them", p.Fields, row.field)
				}
			})
		}
	}
}

// TestLargestBodyThatIsAllowed is read to its end, and taken.
func TestLargestBodyThatIsAllowed(t *testing.T) {
	t.Parallel()
	for to, row := range map[string]struct {
		body string
		size int
	}{
		"create":     {minimal, contract.KeyBodyLimit},
		"update":     {minimal, contract.KeyBodyLimit},
		"regenerate": {"{}", contract.KeyBodyLimit},
		"account":    {`{"permissions":[]}`, contract.AccountBodyLimit},
	} {
		read := decoders(t)[to]
		if err := read(fill(row.size, row.body, " ", "")); err != nil {
			t.Errorf("%s: a body of %d bytes: %v", to, row.size, err)
		}
		err := read(fill(row.size+1, row.body, " ", ""))
		refused(problem.BodyTooLarge).check(t, err)
	}
}

// worst are the bodies that cost the most to refuse, by what they do.
func worst(size int) map[string]string {
	return map[string]string{
		"empty_permissions":  fill(size, `{"name":"x","permissions":[`, `"",`, `""]}`),
		"wildcards":          fill(size, `{"name":"x","permissions":[`, `":*",`, `""]}`),
		"empty_subaccounts":  fill(size, `{"name":"x","permissions":["x"],"allowed_subaccounts":[`, `"",`, `""]}`),
		"foreign_uuids":      fill(size, `{"name":"x","permissions":["x"],"allowed_subaccounts":[`, `"`+subC+`",`, `""]}`),
		"own_uuids":          fill(size, `{"name":"x","permissions":["x"],"allowed_subaccounts":[`, `"`+subA+`",`, `""]}`),
		"many_addresses":     fill(size, `{"name":"x","permissions":["x"],"allowed_ips":[`, `"::",`, `""]}`),
		"long_name":          fill(size, `{"permissions":["x"],"name":"`, `\u0000`, `"}`),
		"long_field":         fill(size, `{"`, `\u00e4`, `":1}`),
		"long_permission":    fill(size, `{"name":"x","permissions":["`, `\n`, `"]}`),
		"deep_list":          fill(size, `{"permissions":`, `[`, `]`),
		"deep_object":        fill(size, ``, `{"a":`, `}`),
		"many_digits":        fill(size, `{"expires_at":`, `9`, `}`),
		"many_grace_digits":  fill(size, `{"grace_period_seconds":`, `9`, `}`),
		"many_members":       manyMembers(size, `{"name":{`, "}}"),
		"many_escapes":       fill(size, `{"name":"`, `\ud83d\ude00`, `"}`),
		"white_space":        fill(size, `{`, ` `, `"x":1}`),
		"empty_objects":      fill(size, `{"permissions":["x"],"subaccounts":[`, `{},`, `{}]}`),
		"nulls":              fill(size, `{"permissions":["x"],"subaccounts":[`, `null,`, `null]}`),
		"one_uuid_for_all":   fill(size, `{"permissions":["x"],"subaccounts":[`, `{"id":"`+subA+`"},`, `{}]}`),
		"nothing_but_quotes": fill(size, `{"name":"x","permissions":[`, `"\"",`, `""]}`),
	}
}

// BenchmarkRefusedBody is what a body of the largest size can cost: 64 KiB
// from a customer, and from an operator what an account may have.
func BenchmarkRefusedBody(b *testing.B) {
	read := decoders(b)
	for _, to := range slices.Sorted(maps.Keys(read)) {
		size := contract.KeyBodyLimit
		if to == "account" {
			size = contract.AccountBodyLimit
		}
		bodies := worst(size)
		for _, name := range slices.Sorted(maps.Keys(bodies)) {
			b.Run(to+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(bodies[name])))
				for b.Loop() {
					if err := read[to](bodies[name]); err == nil {
						b.Fatal("accepted")
					}
				}
			})
		}
	}
}

// TestWorstBodiesAreRefusedWithinBounds: also the benchmark's bodies have
// answers that are short.
func TestWorstBodiesAreRefusedWithinBounds(t *testing.T) {
	t.Parallel()
	for to, read := range decoders(t) {
		for name, body := range worst(contract.KeyBodyLimit) {
			err := read(body)
			checkRefused(t, err)
			shown := 0
			for _, f := range problem.From(err).Fields {
				shown += utf8.RuneCountInString(f.Field + f.Detail)
			}
			if shown > 20_000 {
				t.Errorf("%s of %s: the answer has %d characters", to, name, shown)
			}
		}
	}
}

func readUpdate(t testing.TB, body string) (keystore.Update, error) {
	t.Helper()
	var k contract.UpdateKey
	if err := contract.ReadBody(httptest.NewRecorder(), post(strings.NewReader(body)), contract.KeyBodyLimit, &k); err != nil {
		return keystore.Update{}, err
	}
	return k.Parse(account(), catalogue(t), now)
}

func readRegeneration(body string) (time.Duration, error) {
	var k contract.RegenerateKey
	if err := contract.ReadOptionalBody(httptest.NewRecorder(), post(strings.NewReader(body)), contract.KeyBodyLimit, &k); err != nil {
		return 0, err
	}
	return k.Parse()
}
