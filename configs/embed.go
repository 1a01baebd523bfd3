package configs

import _ "embed"

// Starter is our own starter list of ad, tracker and telemetry names; it needs
// no network.
//
//go:embed starter.txt
var Starter []byte
