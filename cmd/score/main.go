// Command score measures how well captures are read against third-party truth,
// and keeps docs/scores.md honest: a score that fell is an error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

func main() {
	update := flag.Bool("update", false, "write the measured scores into docs/scores.md")
	verbose := flag.Bool("v", false, "print every miss")
	doc := flag.String("doc", "docs/scores.md", "the page with the scores")
	flag.Parse()
	data := os.Getenv("NETCURTAIN_TRUTH")
	if data == "" {
		data = filepath.FromSlash("../shared/data")
	}
	if err := run(context.Background(), data, *doc, *update, *verbose, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "score:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, data, doc string, update, verbose bool, out io.Writer) error {
	dir := filepath.Join(data, "truth")
	want, err := readTruth(filepath.Join(dir, "expected.tsv"))
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(out, "SCORE: data absent")
		return nil
	}
	if err != nil {
		return err
	}
	got, err := measure(ctx, filepath.Join(dir, "pcaps"), want)
	if err != nil {
		return err
	}
	fmt.Fprint(out, got.tables())
	if verbose {
		for _, m := range got.misses {
			fmt.Fprintf(out, "%s  %s  %s: want %s, got %s\n", m.capture, m.flow, m.what, m.want, m.got)
		}
	}
	page, err := os.ReadFile(doc)
	if err != nil && !(update && errors.Is(err, fs.ErrNotExist)) {
		return err
	}
	if update {
		return os.WriteFile(doc, got.page(page), 0o644)
	}
	if fell := got.fellBelow(page); len(fell) > 0 {
		for _, f := range fell {
			fmt.Fprintln(out, "FELL:", f)
		}
		return fmt.Errorf("%d figures are worse than in %s", len(fell), doc)
	}
	return nil
}
