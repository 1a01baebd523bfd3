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
//
// One in the volatile folder is newer: there was no room for it on flash.
func (l *Lists) loadIndex() {
	for _, dir := range []string{l.cfg.Scratch, l.cfg.Dir} {
		path := filepath.Join(dir, indexName)
		switch err := l.loadIndexFrom(path); {
		case err == nil:
			return
		case !errors.Is(err, fs.ErrNotExist):
			l.log.Warn("the list index is unusable and is made anew", "file", path, "err", err)
		}
	}
}

func (l *Lists) loadIndexFrom(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	index, size, err := l.mapIndex(f)
	switch {
	case err != nil:
		return err
	case l.stillWanted(index):
		l.chooseAsIn(index)
		l.use(index, size)
	default:
		l.index = index // to take lists over from
	}
	return nil
}

// dropDamaged lets go of an index whose pages can no longer be read, so that the
// next update takes nothing over from it and makes all lists anew.
func (l *Lists) dropDamaged() bool {
	if l.index == nil || !l.index.Damaged() {
		return false
	}
	l.log.Error("a page of the list index cannot be read; it is made anew")
	l.index = nil
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.plans) // what is not had is due
	return true
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
//
// Where the flash has no room for it, it goes into the volatile folder; what lies
// on flash stays for the next start.
func (l *Lists) writeIndex(b *blocklist.Builder) (index *blocklist.Index, size int, err error) {
	index, size, err = l.writeIndexIn(l.cfg.Dir, b)
	switch volatile := filepath.Join(l.cfg.Scratch, indexName); {
	case l.cfg.Scratch == l.cfg.Dir:
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		l.log.Warn("there is no room on flash for the list index; it is kept in memory, until the next start", "folder", l.cfg.Dir, "err", err)
		return l.writeIndexIn(l.cfg.Scratch, b)
	case err == nil:
		if err := os.Remove(volatile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.log.Warn("an older list index stays in memory", "err", err)
		}
	}
	return index, size, err
}

func (l *Lists) writeIndexIn(dir string, b *blocklist.Builder) (_ *blocklist.Index, size int, err error) {
	l.step("create")
	f, err := os.CreateTemp(dir, "index-*"+tempSuffix)
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
	if err := os.Rename(f.Name(), filepath.Join(dir, indexName)); err != nil {
		return nil, 0, fmt.Errorf("new list index: %w", err)
	}
	l.step("sync folder")
	return index, size, syncDir(dir)
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
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err == nil {
		kind := uint32(fs.Type)
		l.inMemory = kind == unix.TMPFS_MAGIC || kind == unix.RAMFS_MAGIC
	}
	size := info.Size()
	if size == 0 || size != int64(int(size)) {
		return nil, 0, fmt.Errorf("%d octets: %w", size, blocklist.ErrNotIndex)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, 0, fmt.Errorf("mapping the list index: %w", err)
	}
	// Most of the index is read from the file, and not through the mapping, where what
	// was touched counts as ours.
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("keeping the list index open: %w", err), unix.Munmap(data))
	}
	file := os.NewFile(uintptr(fd), f.Name())
	index, err := blocklist.OpenMapped(data, file, breather())
	if err != nil {
		return nil, 0, errors.Join(err, unix.Munmap(data), file.Close())
	}
	if err := errors.Join(unix.Madvise(data, unix.MADV_RANDOM), unix.Madvise(data, unix.MADV_DONTNEED)); err != nil {
		l.log.Warn("the list index stays in memory whole", "err", err)
	}
	index.OnDamage(l.poke)
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
	resident := index.Resident()
	if l.inMemory {
		resident = size
	}
	l.log.Info("list index in force", "lists", len(index.Lists()), "rules", rules, "names", index.Names(), "bytes", size, "resident", resident)
	l.metrics.inForce(len(index.Lists()), rules, index.Names(), size, resident)
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
	for _, dir := range []string{l.cfg.Dir, l.cfg.Scratch} {
		removeLeftovers(dir)
	}
}

func removeLeftovers(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // whatever is wrong will be said when the index is written
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "index-") && (strings.HasSuffix(e.Name(), tempSuffix) || strings.HasSuffix(e.Name(), scratchSuffix)) {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
