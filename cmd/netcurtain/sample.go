package main

import (
	"bytes"
	_ "embed"
	"io"
)

// sampleCapture is what `inspect` without a file and the demo without root read:
// four seconds of the demo's made-up house (internal/netlab/scene), recorded on
// its bridge with tcpdump and compressed with gzip. TestSample says what must be
// in a new one.
//
//go:embed sample.pcap.gz
var sampleCapture []byte

func sample() io.Reader { return bytes.NewReader(sampleCapture) }
