//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"database/sql"
	"debug/elf"
	"debug/gosym"
	bytesof "encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	_ "github.com/mattn/go-sqlite3" // the daemon's own, to lock its files
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sync/errgroup"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// What is broken is broken in the binary as it ships, while it runs: no switch for
// tests goes into a router.

// hang makes everybody who calls one function of the daemon wait for ever: a
// deadlock of one part in a process that lives. The function's first instructions
// become a receive from a nil channel.
func (s *story) hang(ts *testscript.TestScript, args []string) error {
	needAMD64(ts)
	text, err := functions(fmt.Sprintf("/proc/%d/exe", s.daemon.Process.Pid))
	if err != nil {
		return err
	}
	fn, wait := text.LookupFunc(args[0]), text.LookupFunc("runtime.chanrecv1")
	if fn == nil || wait == nil {
		return fmt.Errorf("the binary has no function %s", args[0])
	}
	code := []byte{0x31, 0xc0, 0x31, 0xdb, 0xe9, 0, 0, 0, 0} // xor eax, eax; xor ebx, ebx; jmp chanrecv1
	bytesof.LittleEndian.PutUint32(code[5:], uint32(wait.Entry-fn.Entry-uint64(len(code))))
	return s.patch(func(mem *os.File) error {
		_, err := mem.WriteAt(code, int64(fn.Entry))
		return err
	})
}

// functions are those of a Go binary, stripped or not.
func functions(path string) (*gosym.Table, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	table, module := f.Section(".gopclntab"), f.Section(".go.module")
	if table == nil || module == nil || f.Type != elf.ET_EXEC {
		return nil, errors.New("this is no Go binary at a fixed address")
	}
	data, err := table.Data()
	if err != nil {
		return nil, err
	}
	// Where Go's own code begins, behind C's, is a field of runtime.moduledata.
	start := make([]byte, 8)
	if _, err := module.ReadAt(start, 22*8); err != nil {
		return nil, err
	}
	return gosym.NewTable(nil, gosym.NewLineTable(data, bytesof.LittleEndian.Uint64(start)))
}

// clock steps the time that the daemon sees, and nobody else's. Go and SQLite ask
// the vDSO for the time; what it says is changed on its way out.
func (s *story) clock(ts *testscript.TestScript, args []string) error {
	needAMD64(ts)
	by, err := time.ParseDuration(strings.TrimPrefix(args[0], "+"))
	if err != nil {
		return err
	}
	start, end, err := mapping(s.daemon.Process.Pid, "[vdso]")
	if err != nil {
		return err
	}
	return s.patch(func(mem *os.File) error {
		image := io.NewSectionReader(mem, start, end-start)
		vdso, err := elf.NewFile(image)
		if err != nil {
			return err
		}
		symbols, err := vdso.DynamicSymbols()
		if err != nil {
			return err
		}
		for _, sym := range symbols {
			if sym.Name != "__vdso_clock_gettime" {
				continue
			}
			code := steppedClock(int32(by / time.Second))
			if sym.Size < uint64(len(code)) {
				return errors.New("the vDSO's clock_gettime has no room for ours")
			}
			_, err := mem.WriteAt(code, start+int64(sym.Value))
			return err
		}
		return errors.New("the vDSO has no clock_gettime")
	})
}

// steppedClock is clock_gettime(2) as a system call, which adds seconds to
// CLOCK_REALTIME and leaves the monotonic clock alone, as a stepped clock does.
func steppedClock(seconds int32) []byte {
	code := []byte{
		0xb8, 0xe4, 0, 0, 0, //            mov  eax, 228 (clock_gettime)
		0x0f, 0x05, //                     syscall
		0x85, 0xff, //                     test edi, edi
		0x75, 0x07, //                     jne  the end
		0x48, 0x81, 0x06, 0, 0, 0, 0, //   add  qword [rsi], seconds
		0xc3, //                           the end: ret
	}
	bytesof.LittleEndian.PutUint32(code[len(code)-5:], uint32(seconds))
	return code
}

// patch changes the daemon's memory while it stands still.
func (s *story) patch(change func(mem *os.File) error) error {
	pid := s.daemon.Process.Pid
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	if err := s.daemon.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for { // until it stands
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return err
		}
		if _, after, _ := strings.Cut(string(b), ") "); strings.HasPrefix(after, "T") {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return errors.Join(change(mem), s.daemon.Process.Signal(syscall.SIGCONT))
}

// mapping is where a process has a part of its memory.
func mapping(pid int, name string) (start, end int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasSuffix(strings.TrimSpace(line), name) {
			_, err := fmt.Sscanf(line, "%x-%x", &start, &end)
			return start, end, err
		}
	}
	return 0, 0, fmt.Errorf("process %d has no %s", pid, name)
}

func needAMD64(ts *testscript.TestScript) {
	if runtime.GOARCH != "amd64" {
		ts.Logf("SKIPPED: this fault is made of amd64 instructions")
		ts.Check(errors.New("run this story on amd64"))
	}
}

// memory puts the daemon into a memory cgroup, of either version, that is full.
func (s *story) memory(ts *testscript.TestScript, args []string) error {
	root, limit := "/sys/fs/cgroup", "memory.max"
	if _, err := os.Stat(root + "/memory/memory.limit_in_bytes"); err == nil {
		root, limit = root+"/memory", "memory.limit_in_bytes"
	}
	dir := filepath.Join(root, filepath.Base(s.dir))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("a memory cgroup is needed: %w", err)
	}
	s.undo = append(s.undo, func() error { return syscall.Rmdir(dir) })
	if err := os.WriteFile(filepath.Join(dir, limit), []byte(args[0]), 0); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(s.daemon.Process.Pid)), 0)
}

// small mounts a memory file system that is soon full.
func (s *story) small(_ *testscript.TestScript, args []string) error {
	dir := filepath.Join(s.dir, args[0])
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=700,size="+args[1]); err != nil {
		return err
	}
	s.undo = append(s.undo, func() error { return syscall.Unmount(dir, syscall.MNT_DETACH) })
	return nil
}

// lock holds a database as a backup program that does it wrong would, in the
// background, for a time.
func (s *story) lock(_ *testscript.TestScript, args []string) error {
	held, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(s.dir, args[0])+"?_busy_timeout=5000")
	if err != nil {
		return err
	}
	c, err := db.Conn(context.Background())
	if err != nil {
		return err
	}
	if _, err := c.ExecContext(context.Background(), "BEGIN EXCLUSIVE"); err != nil {
		return errors.Join(err, db.Close())
	}
	release := sync.OnceFunc(func() { _ = c.Close(); _ = db.Close() })
	time.AfterFunc(held, release)
	s.undo = append(s.undo, func() error { release(); return nil })
	return nil
}

// crowd is held by the story that has thousands of connections.
var crowd sync.Mutex

// idle opens connections from a device to port 80 of a host, or over TLS to 443, asks
// for a page on each, and leaves them be. "idle none" closes all.
func (s *story) idle(ts *testscript.TestScript, args []string) error {
	if args[0] == "none" {
		s.hangUp()
		return nil
	}
	d := s.devices[args[0]]
	host, err := dnsname.Parse(args[1])
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	if n >= 1000 && !s.crowded {
		crowd.Lock() // this process has descriptors for one such story at a time
		s.crowded = true
		s.undo = append(s.undo, func() error { crowd.Unlock(); return nil })
	}
	if err := allowDescriptors(uint64(2*n + 3000)); err != nil {
		return err
	}
	if s.idlers == nil {
		s.undo = append(s.undo, func() error { s.hangUp(); return nil })
	}
	port, secure := uint16(80), len(args) > 3 && args[3] == "tls"
	if secure {
		port = 443
	}
	to := netip.AddrPortFrom(d.Addr(host), port).String()
	ask := []byte("GET / HTTP/1.1\r\nHost: " + string(host) + "\r\nX-Down: 1\r\n\r\n")
	answered := make(chan net.Conn)
	var some errgroup.Group
	const askers = 8
	for i := range askers {
		some.Go(func() error {
			return d.Host.Do(func() error {
				dialer := net.Dialer{Timeout: 20 * time.Second}
				dialer.SetMultipathTCP(false)
				for range (n + i) / askers {
					c, err := dialer.Dial("tcp", to)
					if err != nil {
						continue
					}
					_ = c.SetDeadline(time.Now().Add(30 * time.Second))
					if secure {
						c = tls.Client(c, &tls.Config{ServerName: string(host), RootCAs: d.Roots, NextProtos: []string{"http/1.1"}})
					}
					if _, err := c.Write(ask); err != nil {
						c.Close()
						continue
					}
					if m, err := c.Read(make([]byte, 512)); err != nil || m == 0 {
						c.Close()
						continue
					}
					_ = c.SetDeadline(time.Time{})
					answered <- c
				}
				return nil
			})
		})
	}
	go func() { err = some.Wait(); close(answered) }()
	before := len(s.idlers)
	for c := range answered {
		s.idlers = append(s.idlers, c)
	}
	fmt.Fprintf(ts.Stdout(), "%d of %d were refused\n", n-(len(s.idlers)-before), n)
	return err
}

func (s *story) hangUp() {
	for _, c := range s.idlers {
		c.Close()
	}
	s.idlers = nil
}

// allowDescriptors raises this process's limit, in which all of the house but the
// daemon lives.
func allowDescriptors(n uint64) error {
	limit := syscall.Rlimit{}
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Cur >= n {
		return nil
	}
	limit.Cur, limit.Max = n, max(limit.Max, n)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("%d descriptors: %w", n, err)
	}
	return nil
}
