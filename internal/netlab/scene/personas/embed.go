// Package personas holds the devices of the demo's house as text files.
package personas

import (
	"embed"
)

// Files are the personas, one .txt each.
//
//go:embed *.txt
var Files embed.FS

// Destinations says who the made-up companies are, in the form of the atlas.
//
//go:embed destinations.tsv
var Destinations string
