//go:build linux

package enforce

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/netcurtain/netcurtain/devices"
)

// nft is the path of the nft program.
type nft string

// load checks text, then applies it in one transaction.
func (n nft) load(ctx context.Context, text string) error {
	if err := n.check(ctx, text); err != nil {
		return err
	}
	return n.run(ctx, text, "-f", "-")
}

// check asks parser and kernel whether text could be loaded.
func (n nft) check(ctx context.Context, text string) error {
	return n.run(ctx, text, "-c", "-f", "-")
}

func (n nft) run(ctx context.Context, stdin string, args ...string) error {
	_, err := n.output(ctx, stdin, args...)
	return err
}

func (n nft) output(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, string(n), args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if err == nil {
		return out.String(), nil
	}
	return "", explain(ctx, err, said.String())
}

// listFor is how long a listing may take. nft begins anew whenever a rule or an element
// changed meanwhile, for ever where something changes all the time.
const listFor = 10 * time.Second

var errRestless = fmt.Errorf("the kernel's rules could not be listed within %s: some program changes them all the time (nft monitor shows which)", listFor)

func (n nft) list(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, listFor, errRestless)
	defer cancel()
	return n.output(ctx, "", args...)
}

// rules lists a table without what its sets hold.
func (n nft) rules(ctx context.Context, table string) (string, error) {
	return n.list(ctx, "--terse", "--stateless", "list", "table", "inet", table)
}

// ruleset lists all tables without what their sets hold.
func (n nft) ruleset(ctx context.Context) (ruleset, error) {
	listing, err := n.list(ctx, "--handle", "--terse", "list", "ruleset")
	return parseRuleset(listing), err
}

// holds reports whether a set of another table has an element.
func (n nft) holds(ctx context.Context, table, set, element string) (bool, error) {
	words := append([]string{"get", "element"}, strings.Fields(table)...)
	err := n.run(ctx, "", append(words, set, "{", element, "}")...)
	if err != nil && strings.Contains(err.Error(), "Could not process rule: No such file or directory") {
		return false, nil
	}
	return err == nil, err
}

// Errors that a person can mend; each message says how.
var (
	ErrNoNFT    = errors.New("nft is not installed: apt-get install nftables, or on OpenWrt opkg install nftables")
	ErrNoRights = errors.New("the kernel refuses: run as root, or with the capability CAP_NET_ADMIN")
)

func explain(ctx context.Context, err error, said string) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("nft: %w", context.Cause(ctx))
	case errors.Is(err, exec.ErrNotFound), strings.Contains(err.Error(), "no such file or directory"):
		return ErrNoNFT
	case strings.Contains(said, "Operation not permitted"), strings.Contains(said, "you must be root"):
		return ErrNoRights
	}
	said = strings.TrimSpace(said)
	if len(said) > 600 {
		said = said[:600] + "…"
	}
	return fmt.Errorf("nft: %w: %s", err, said)
}

// features are parts that some kernels lack and that we can stand without, and
// what else of the machine the rules depend on.
type features struct {
	zones, tproxy, redirect bool
	wayOut                  []string      // interfaces of default routes
	proxied                 []devices.MAC // as in members, before
}

// probe finds out which features the kernel has. It changes nothing.
func (n nft) probe(ctx context.Context) (features, error) {
	if err := n.check(ctx, "table inet netcurtain_probe {}\n"); err != nil {
		return features{}, err
	}
	var unasked error
	has := func(chain string) bool {
		err := n.check(ctx, "table inet netcurtain_probe {\n\tchain probe {\n\t\t"+chain+"\n\t}\n}\n")
		if err != nil && !saysNo(err) {
			unasked = err
		}
		return err == nil
	}
	f := features{
		zones:    has("type filter hook prerouting priority raw;\n\t\tct zone set 1"),
		tproxy:   has("type filter hook prerouting priority mangle;\n\t\tmeta l4proto tcp socket transparent 1 tproxy to :1"),
		redirect: has("type nat hook prerouting priority dstnat;\n\t\tct original zone 1 tcp dport 1 redirect to :1"),
	}
	return f, cmp.Or(ctx.Err(), unasked)
}

// saysNo tells what nft refused from what it was never asked: it could not be started, or
// somebody killed it, as the kernel does where memory is short.
func saysNo(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.Exited()
}
