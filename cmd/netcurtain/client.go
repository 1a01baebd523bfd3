package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"time"

	"github.com/netcurtain/netcurtain/configs"
	"github.com/netcurtain/netcurtain/ui/api"
)

// socketFlag is what every command on a running house has.
type socketFlag struct {
	Socket string `help:"Control socket of the house." placeholder:"PATH" env:"NETCURTAIN_SOCKET"`

	// standIn, when it is set, answers where no daemon does.
	standIn func(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error)
	wait    time.Duration // for an answer; answerWithin when zero
}

// patient waits for what takes long: a list has to be fetched for the answer.
func (f socketFlag) patient() socketFlag {
	f.wait = 6 * time.Minute
	return f
}

// ledgerFlags are common to the commands on what was written down. They work without
// a daemon, too: then the settings say where that is.
type ledgerFlags struct {
	socketFlag
	configFlag
}

// orAlone is the flags with a stand-in for the daemon.
func (f ledgerFlags) orAlone() socketFlag {
	f.standIn = f.askAlone
	return f.socketFlag
}

// answerWithin is how long one answer of the house may take.
const answerWithin = 30 * time.Second

// call asks the running house: body nil is a GET. The answer goes into out
// unless that is nil.
func (f socketFlag) call(ctx context.Context, method, path string, query url.Values, body, out any) error {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(f.wait, answerWithin))
	defer cancel()
	resp, err := f.send(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("reading the daemon's answer: %w", err)
	}
	return nil
}

// stream copies what the house answers to a GET, however much that is.
func (f socketFlag) stream(ctx context.Context, path string, query url.Values, to io.Writer) error {
	resp, err := f.send(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(to, resp.Body); err != nil {
		return fmt.Errorf("the answer broke off, what came is not all: %w", err)
	}
	return nil
}

// send asks the running house, or, where no daemon runs and the command can do
// without, the one that standIn opens. An answer that says no is an error.
func (f socketFlag) send(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
	socket := f.Socket
	if socket == "" {
		socket = configs.Defaults().House.Socket
	}
	resp, err := ask(ctx, func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}, method, path, query, body)
	if err != nil {
		err = dialError(socket, err)
	}
	if errors.Is(err, errNoDaemon) && f.standIn != nil {
		return f.standIn(ctx, method, path, query, body)
	}
	if err != nil {
		return nil, err
	}
	return refused(resp)
}

// ask sends one request over a connection of its own.
func ask(ctx context.Context, dial func(ctx context.Context, network, addr string) (net.Conn, error),
	method, path string, query url.Values, body any) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://netcurtain"+path, content)
	if err != nil {
		return nil, err
	}
	req.URL.RawQuery = query.Encode()
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return (&http.Transport{DialContext: dial, DisableKeepAlives: true}).RoundTrip(req)
}

// refused turns an answer that says no into an error.
func refused(resp *http.Response) (*http.Response, error) {
	if resp.StatusCode < 400 {
		return resp, nil
	}
	defer resp.Body.Close()
	var e api.Error
	if json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(&e) != nil || e.Error == "" {
		return nil, fmt.Errorf("the daemon answered %s", resp.Status)
	}
	if resp.StatusCode == http.StatusBadRequest {
		return nil, usageError{e.Error}
	}
	return nil, errors.New(e.Error)
}

// errNoDaemon says that nobody runs the house whom one could ask.
var errNoDaemon = errors.New("no daemon answers")

// dialError says which of the usual things is wrong and what mends it.
func dialError(socket string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w at %s: start it with `netcurtain run` (or name another house with --socket)", errNoDaemon, socket)
	case errors.Is(err, context.DeadlineExceeded), os.IsTimeout(err):
		return fmt.Errorf("%w at %s: it runs and hangs", errNoDaemon, socket)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("%s: the daemon closed the connection: it lets in root and its own user only, or is stopping", socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: not allowed: run this as root or as the daemon's user", socket)
	}
	return err
}

func (f socketFlag) get(ctx context.Context, path string, query url.Values, out any) error {
	return f.call(ctx, http.MethodGet, path, query, nil, out)
}

func (f socketFlag) post(ctx context.Context, path string, body, out any) error {
	return f.call(ctx, http.MethodPost, path, nil, body, out)
}

// devicePath is where the API keeps a device, by whatever a person calls it.
func devicePath(device, what string) (string, error) {
	if device == "" || device == "." || device == ".." { // no segment of a path
		return "", usageError{fmt.Sprintf("device %q: its name, address or ID is needed; netcurtain devices lists them", device)}
	}
	return "/api/v1/devices/" + url.PathEscape(device) + what, nil
}

// jsonFlag is what every command that reads has.
type jsonFlag struct {
	JSON bool `help:"Print JSON."`
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
