package lists

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcurtain/netcurtain/policy/blocklist"
)

const (
	indexName     = "index"
	tempSuffix    = ".new"
	scratchSuffix = ".runs"
)

// loadIndex maps the index that the last run left and brings it into force, if
// every list in it is still wanted: then blocking works before any network does.
func (l *Lists) loadIndex() {
	path := filepath.Join(l.cfg.Dir, indexName)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		defer f.Close()
		var index *blocklist.Index
		var size int
		if index, size, err = l.mapIndex(f); err == nil {
			if l.stillWanted(index) {
				l.chooseAsIn(index)
				l.use(index, size)
			} else {
				l.index = index // to take lists over from
			}
			return
		}
	}
	l.log.Warn("the list index is unusable and is made anew", "file", path, "err", err)
}

// dropDamaged lets go of an index whose pages can no longer be read, so that the
// next update takes nothing over from it and makes all lists anew.
func (l *Lists) dropDamaged() {
	if l.index == nil || !l.index.Damaged() {
		return
	}
	l.log.Error("a page of the list index cannot be read; it is made anew")
	l.index = nil
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.plans) // what is not had is due
}

func (l *Lists) stillWanted(index *blocklist.Index) bool {
	for _, info := range index.Lists() {
		if !slices.ContainsFunc(l.sources, func(s Source) bool { return s.Name == info.Name && s.Allow == info.Allow }) {
			return false
		}
	}
	return true
}

// writeIndex writes the index beside the old one and takes its place. The old
// file is never written to: whoever has it mapped goes on reading it.
func (l *Lists) writeIndex(b *blocklist.Builder) (_ *blocklist.Index, size int, err error) {
	l.step("create")
	f, err := os.CreateTemp(l.cfg.Dir, "index-*"+tempSuffix)
	if err != nil {
		return nil, 0, fmt.Errorf("new list index: %w", err)
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			_ = os.Remove(f.Name()) // gone already when it was renamed
		}
	}()
	l.step("write")
	if err := b.Write(f); err != nil {
		return nil, 0, err
	}
	l.step("sync")
	if err := f.Sync(); err != nil {
		return nil, 0, fmt.Errorf("new list index: %w", err)
	}
	// Opened before it takes the old one's place: it is read whole and its sum
	// compared, so that what a bad flash made of it never comes into force.
	l.step("read back")
	index, size, err := l.mapIndex(f)
	if err != nil {
		return nil, 0, fmt.Errorf("new list index, read back: %w", err)
	}
	l.step("rename")
	if err := os.Rename(f.Name(), filepath.Join(l.cfg.Dir, indexName)); err != nil {
		return nil, 0, fmt.Errorf("new list index: %w", err)
	}
	l.step("sync folder")
	return index, size, syncDir(l.cfg.Dir)
}

// syncDir makes a rename last over a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// mapIndex maps f and opens the index in it. The mapping belongs to the Index:
// it is released when nobody can reach the Index any more, and so not while any
// reader is in Match.
func (l *Lists) mapIndex(f *os.File) (*blocklist.Index, int, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	size := info.Size()
	if size == 0 || size != int64(int(size)) {
		return nil, 0, fmt.Errorf("%d octets: %w", size, blocklist.ErrNotIndex)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, 0, fmt.Errorf("mapping the list index: %w", err)
	}
	// The index reads itself whole for its sum, and again when a list is taken over
	// from it: from the file, for what is read through the mapping counts as ours.
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("keeping the list index open: %w", err), unix.Munmap(data))
	}
	file := os.NewFile(uintptr(fd), f.Name())
	index, err := blocklist.OpenMapped(data, file)
	if err != nil {
		return nil, 0, errors.Join(err, unix.Munmap(data), file.Close())
	}
	if err := errors.Join(unix.Madvise(data, unix.MADV_RANDOM), unix.Madvise(data, unix.MADV_DONTNEED)); err != nil {
		l.log.Warn("the list index stays in memory whole", "err", err)
	}
	l.metrics.mapped.Inc()
	runtime.AddCleanup(index, func(data []byte) {
		if err := errors.Join(unix.Munmap(data), file.Close()); err != nil {
			l.log.Error("an old list index stays mapped", "err", err)
			return
		}
		l.metrics.mapped.Dec()
	}, data)
	return index, int(size), nil
}

// use brings index into force.
func (l *Lists) use(index *blocklist.Index, size int) {
	rules := 0
	for _, info := range index.Lists() {
		rules += info.Rules
	}
	l.log.Info("list index in force", "lists", len(index.Lists()), "rules", rules, "names", index.Names(), "bytes", size)
	l.metrics.inForce(len(index.Lists()), rules, index.Names(), size)
	l.cfg.OnIndex(index)
	l.index = index
	l.noteShares(index)
	// The old mapping holds the flash of a deleted file until the collector finds
	// that nobody reads it, which in a quiet house may take minutes. This happens
	// a few times a day; it also gives back what compiling used.
	debug.FreeOSMemory()
}

// noteShares says of each list what it has in common with the others.
func (l *Lists) noteShares(index *blocklist.Index) {
	infos := index.Lists()
	for _, info := range infos {
		l.setStatus(info.Name, func(st *Status) {
			st.Unique, st.Shared = info.Unique, nil
			for i, n := range info.Shared {
				if i < len(infos) && infos[i].Name != info.Name && n > 0 {
					if st.Shared == nil {
						st.Shared = map[string]int{}
					}
					st.Shared[infos[i].Name] = n
				}
			}
		})
	}
}

// removeLeftovers deletes what a crash left of an unfinished index.
func (l *Lists) removeLeftovers() {
	entries, err := os.ReadDir(l.cfg.Dir)
	if err != nil {
		return // whatever is wrong will be said when the index is written
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "index-") && (strings.HasSuffix(e.Name(), tempSuffix) || strings.HasSuffix(e.Name(), scratchSuffix)) {
			_ = os.Remove(filepath.Join(l.cfg.Dir, e.Name()))
		}
	}
}
