package leases

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/devices"
)

// Config says which lease files to watch. Paths, Logger and Registerer are needed.
type Config struct {
	Paths  []string // absolute, such as /tmp/dhcp.leases; files may come later or go
	Logger *slog.Logger
	// FS is the file system root; default the machine's.
	FS fs.FS
	// Interval is how often the files are looked at; default 10 s. Nothing is
	// read unless a file's time or size changed.
	Interval   time.Duration
	Registerer prometheus.Registerer
}

// Watcher reads lease files again whenever they change.
type Watcher struct {
	cfg   Config
	files []*file
	bad   prometheus.Counter
}

// file is what was last seen of one lease file.
type file struct {
	path    string // as configured
	name    string // within the FS
	modTime time.Time
	size    int64
	trouble string // last complaint, so that it is said once
	held    map[key]Lease
}

type key struct {
	mac  devices.MAC
	addr netip.Addr
}

// New checks cfg and starts nothing.
func New(cfg Config) (*Watcher, error) {
	switch {
	case len(cfg.Paths) == 0:
		return nil, errors.New("lease files: at least one path is needed, such as /tmp/dhcp.leases")
	case cfg.Logger == nil:
		return nil, errors.New("lease files: a logger is needed")
	case cfg.Registerer == nil:
		return nil, errors.New("lease files: a metrics registerer is needed")
	}
	if cfg.FS == nil {
		cfg.FS = os.DirFS("/")
	}
	if cfg.Interval <= 0 {
		cfg.Interval = 10 * time.Second
	}
	w := &Watcher{cfg: cfg, bad: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "netcurtain_leases_lines_skipped_total",
		Help: "Lines of lease files that could not be read.",
	})}
	for _, p := range cfg.Paths {
		name := strings.TrimPrefix(p, "/")
		if !strings.HasPrefix(p, "/") || !fs.ValidPath(name) {
			return nil, fmt.Errorf("lease file %q: an absolute path without . and .. is needed", p)
		}
		w.files = append(w.files, &file{path: p, name: name})
	}
	if err := cfg.Registerer.Register(w.bad); err != nil {
		return nil, fmt.Errorf("registering the metrics of lease files: %w", err)
	}
	return w, nil
}

// Run reads the files now and after each change until ctx ends, and calls sight
// for each lease that is new, changed or gone. A file that is missing or cannot
// be read is no error: it may come back.
func (w *Watcher) Run(ctx context.Context, sight func(devices.Sighting)) error {
	tick := time.NewTicker(w.cfg.Interval)
	defer tick.Stop()
	for {
		for _, f := range w.files {
			w.look(f, sight)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look reads one file if it changed.
func (w *Watcher) look(f *file, sight func(devices.Sighting)) {
	info, err := fs.Stat(w.cfg.FS, f.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.complain(w.cfg.Logger, "no lease file yet")
		return
	case err != nil:
		f.complain(w.cfg.Logger, err.Error())
		return
	case !info.Mode().IsRegular():
		f.complain(w.cfg.Logger, "not a regular file")
		return
	case info.ModTime().Equal(f.modTime) && info.Size() == f.size:
		return
	}
	held, err := w.read(f)
	if err != nil {
		f.complain(w.cfg.Logger, err.Error())
		return
	}
	f.modTime, f.size, f.trouble = info.ModTime(), info.Size(), ""
	w.tell(f.held, held, info.ModTime(), sight)
	f.held = held
}

func (w *Watcher) read(f *file) (map[key]Lease, error) {
	r, err := w.cfg.FS.Open(f.name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var first *LineError
	skipped := 0
	held := map[key]Lease{}
	// Expiry is the server's business, which takes old leases out of its file: a
	// router's clock is wrong at boot, and would make all of them look expired.
	err = Parse(r, func(l Lease) { held[key{l.MAC, l.Addr}] = l }, func(bad *LineError) {
		w.bad.Inc()
		if skipped++; first == nil {
			first = bad
		}
	})
	if skipped > 0 {
		w.cfg.Logger.Warn("lines of the lease file skipped", "file", f.path, "skipped", skipped, "first", first)
	}
	return held, err
}

// tell compares what a file said before with what it says now. The file's own
// time dates the sightings: leases outlive the presence of their devices.
func (w *Watcher) tell(before, now map[key]Lease, at time.Time, sight func(devices.Sighting)) {
	for k, l := range before {
		if _, still := now[k]; !still {
			sight(devices.Sighting{MAC: l.MAC, Addr: l.Addr, Source: devices.SourceLease, At: at, Gone: true})
		}
	}
	for k, l := range now {
		if old, had := before[k]; !had || old.Hostname != l.Hostname || !old.Expires.Equal(l.Expires) {
			sight(devices.Sighting{MAC: l.MAC, Addr: l.Addr, Hostname: l.Hostname, Source: devices.SourceLease, At: at})
		}
	}
}

func (f *file) complain(log *slog.Logger, what string) {
	if f.trouble != what {
		log.Warn("lease file not read", "file", f.path, "why", what)
		f.trouble = what
	}
}
