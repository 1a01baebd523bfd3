package configs

import _ "embed"

// Shipped is the settings file as it ships: every option, commented out, with
// its default.
//
//go:embed netcurtain
var Shipped string

// Starter is our own starter list of ad, tracker and telemetry names; it needs
// no network.
//
//go:embed starter.txt
var Starter []byte
