package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/netcurtain/netcurtain/configs"
)

const settingsPath = "/etc/config/netcurtain"

// configFlag is what every command that reads the settings file has.
type configFlag struct {
	Config string `help:"Settings file." default:"/etc/config/netcurtain" placeholder:"FILE" env:"NETCURTAIN_CONFIG"`
}

// read reads the settings file; without the default file the defaults apply.
func (f configFlag) read() (configs.Settings, error) {
	file, err := os.Open(f.Config)
	if errors.Is(err, fs.ErrNotExist) && f.Config == settingsPath {
		return configs.Defaults(), nil
	}
	if err != nil {
		return configs.Settings{}, fmt.Errorf("settings: %w", err)
	}
	defer file.Close()
	return configs.Parse(file, f.Config)
}

// judge says in words how the settings file is.
func (f configFlag) judge() (meaning string, err error) {
	if _, err := f.read(); err != nil {
		return strings.TrimPrefix(err.Error(), "settings: "), err
	}
	if _, err := os.Stat(f.Config); errors.Is(err, fs.ErrNotExist) {
		return "there is no " + f.Config + ": the defaults are in force", nil
	}
	return f.Config + " is right", nil
}

type runCmd struct {
	configFlag
	PageFD  int  `name:"page-fd" hidden:"" help:"Descriptor of a listener for the page that whoever starts us has opened."`
	UntilFD int  `name:"until-fd" hidden:"" help:"Descriptor of a pipe: when its other end closes, whoever started us is gone, and we stop."`
	Debug   bool `help:"Log more, names of sites included."`
}

func (runCmd) Help() string {
	return `Runs until SIGTERM. SIGHUP reads the settings file again; a bad one keeps the old in force.

Examples:
  netcurtain run
  netcurtain run --config ./netcurtain --debug`
}

func (c runCmd) logger(io std) *slog.Logger {
	level := slog.LevelInfo
	if c.Debug {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(io.err, &slog.HandlerOptions{Level: level}))
}

type checkCmd struct {
	configFlag
	jsonFlag
}

func (checkCmd) Help() string {
	return "Examples:\n  netcurtain check\n  netcurtain check --config ./netcurtain"
}
