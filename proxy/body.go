package proxy

import (
	"errors"
	"io"
	"sync/atomic"
	"time"
)

// largeBody is from how many bytes on the kernel moves a body.
const largeBody = 64 << 10

// body is an answer's on its way to the device.
type body struct {
	io.ReadCloser
	to     *response
	length int64 // -1 is unknown
	read   int64
	begun  bool
}

// Read implements io.Reader. It sends on what was read before it waits for more: a
// stream must not stick in our buffers.
func (b *body) Read(p []byte) (int, error) {
	if b.begun {
		b.to.Flush()
	}
	b.begun = true
	return b.next(p)
}

func (b *body) next(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	return n, err
}

// pass writes all of b, whose length is known, to the device. What was read along with
// the head stands in the transport's buffer. When that is empty the kernel moves the
// rest (splice(2)), and the transport is told of so many bytes, so that it knows where
// the next answer begins.
func (c *conn) pass(b *body) (n int64, err error) {
	pooled := c.proxy.copies.Get().(*[]byte)
	defer c.proxy.copies.Put(pooled)
	buf := *pooled
	for {
		c.unheld = nil
		m, err := b.next(buf)
		if m, werr := c.Write(buf[:m]); werr != nil {
			return n + int64(m), werr
		}
		n += int64(m)
		o, left := c.unheld, b.length-b.read
		switch {
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return n, err
		case o == nil || left < largeBody:
			continue
		}
		moved, err := c.move(o, left)
		n += moved
		if err != nil {
			return n, err
		}
		for o.moved = moved; o.moved > 0 && err == nil; {
			_, err = b.next(buf)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return n, err
		}
		if err != nil {
			return n, nil
		}
	}
}

// move moves so many bytes from the origin to the device.
func (c *conn) move(o *origin, left int64) (moved int64, err error) {
	for left > 0 && err == nil {
		// A pause is none of our business; it only lets watch see what moved.
		if err = o.TCPConn.SetReadDeadline(time.Now().Add(linger)); err != nil {
			break
		}
		var n int64
		n, err = c.TCPConn.ReadFrom(&io.LimitedReader{R: o.TCPConn, N: min(left, burst)})
		c.in.Add(n)
		left, moved = left-n, moved+n
		switch {
		case isTimeout(err):
			err = nil
		case err == nil && n == 0:
			err = io.ErrUnexpectedEOF
		}
	}
	return moved, errors.Join(err, o.TCPConn.SetReadDeadline(time.Time{}))
}

// sentBody is a request's on its way to the origin.
type sentBody struct {
	io.ReadCloser
	broken atomic.Bool // the device does not keep to the coding, or is gone
}

// Read implements io.Reader.
func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.broken.Store(true)
	}
	return n, err
}
