package main

import (
	"bytes"
	_ "embed"
	"io"
)

// sampleCapture is what `inspect` without a file and the demo without root read.
// TestSample writes it (go test ./cmd/netcurtain -run TestSample -update).
//
//go:embed sample.pcap
var sampleCapture []byte

func sample() io.Reader { return bytes.NewReader(sampleCapture) }
