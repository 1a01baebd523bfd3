package store_test

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

// mountSmall mounts a file system of so many bytes in RAM, until the test ends.
func mountSmall(t testing.TB, dir string, bytes int) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Skipf("a small file system cannot be mounted (%v): root is needed", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}
