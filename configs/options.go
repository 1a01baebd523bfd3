package configs

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/netcurtain/netcurtain/internal/uci"
	"github.com/netcurtain/netcurtain/policy"
)

// option is one known key and where its value goes.
type option struct {
	key   string
	list  bool
	parse func(values []string) error
}

func (o option) apply(u uci.Option) error {
	if u.List && !o.list {
		return errors.New("takes one value: write option, not list")
	}
	return o.parse(u.Values)
}

func find(known []option, key string) (option, bool) {
	for _, o := range known {
		if o.key == key {
			return o, true
		}
	}
	return option{}, false
}

func text(key string, to *string, most int) option {
	return option{key: key, parse: func(v []string) error {
		if v[0] == "" || len(v[0]) > most {
			return fmt.Errorf("1 to %d octets are needed", most)
		}
		*to = v[0]
		return nil
	}}
}

func yes(key string, to *bool) option {
	return option{key: key, parse: func(v []string) error {
		switch v[0] {
		case "1", "yes", "on", "true", "enabled":
			*to = true
		case "0", "no", "off", "false", "disabled":
			*to = false
		default:
			return fmt.Errorf("%.40q: 1 or 0 is needed", v[0])
		}
		return nil
	}}
}

func word(key string, to *string, allowed ...string) option {
	return option{key: key, parse: func(v []string) error {
		for _, a := range allowed {
			if v[0] == a {
				*to = a
				return nil
			}
		}
		return fmt.Errorf("%.40q: one of %s is needed", v[0], strings.Join(allowed, ", "))
	}}
}

func hello(key string, p *Proxy, kind policy.Hello) option {
	return option{key: key, parse: func(v []string) (err error) {
		p.Hellos[kind], err = policy.ParseHelloRule(v[0])
		return err
	}}
}

func number[T ~int | ~uint16 | ~uint32](key string, to *T, least, most int64) option {
	return option{key: key, parse: func(v []string) error {
		n, err := strconv.ParseInt(v[0], 0, 64)
		if err != nil || n < least || n > most {
			return fmt.Errorf("%.40q: a number from %d to %d is needed", v[0], least, most)
		}
		*to = T(n)
		return nil
	}}
}

// span reads a duration with d for days beside Go's units.
func span(key string, to *time.Duration, least, most time.Duration) option {
	return option{key: key, parse: func(v []string) error {
		d, err := time.ParseDuration(v[0])
		if days, ok := strings.CutSuffix(v[0], "d"); ok {
			var n int
			n, err = strconv.Atoi(days)
			if n > 100000 {
				n = 100000
			}
			d = time.Duration(n) * 24 * time.Hour
		}
		if err != nil || d < least || d > most {
			return fmt.Errorf("%.40q: a time from %s to %s such as 90s, 15m, 12h or 7d is needed", v[0], least, most)
		}
		*to = d
		return nil
	}}
}

func bytes(key string, to *int64, least int64) option {
	return option{key: key, parse: func(v []string) error {
		digits, unit := v[0], int64(1)
		for suffix, u := range map[string]int64{"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30} {
			if d, ok := strings.CutSuffix(v[0], suffix); ok {
				digits, unit = d, u
			}
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 32)
		if err != nil || n*unit < least {
			return fmt.Errorf("%.40q: a size of at least %d KB, such as 64MB, is needed", v[0], least>>10)
		}
		*to = n * unit
		return nil
	}}
}

func single[T any](key string, to *T, parse func(string) (T, error), needed string) option {
	return option{key: key, parse: func(v []string) error {
		x, err := parse(v[0])
		if err != nil {
			return fmt.Errorf("%.60q: %s is needed", v[0], needed)
		}
		*to = x
		return nil
	}}
}

// each reads a list; what the file says replaces the default whole.
func each[T any](key string, to *[]T, parse func(string) (T, error)) option {
	return option{key: key, list: true, parse: func(v []string) error {
		out := make([]T, 0, len(v))
		for _, s := range v {
			x, err := parse(s)
			if err != nil {
				return err
			}
			out = append(out, x)
		}
		*to = out
		return nil
	}}
}

func each1(key string, to *string, parse func(string) (string, error)) option {
	return option{key: key, parse: func(v []string) (err error) { *to, err = parse(v[0]); return err }}
}

func folder(key string, to *string) option { return each1(key, to, absolute) }
