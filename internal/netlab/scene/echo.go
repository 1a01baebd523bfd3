//go:build linux

package scene

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Names of the made-up internet that behave oddly, by how they begin.
const (
	toHTTPS   = "to-https."   // in clear it leads to its own https
	wrongCert = "wrong-cert." // its certificate is another's
)

// serveWeb answers /echo with what was asked and by which side, anything else with
// as many bytes as X-Down asks for.
func serveWeb(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.TLS == nil && strings.HasPrefix(r.Host, toHTTPS):
		http.Redirect(w, r, "https://"+r.Host+r.RequestURI, http.StatusMovedPermanently)
	case r.URL.Path == "/echo":
		var said bytes.Buffer
		side := "clear"
		if r.TLS != nil {
			side = "tls"
		}
		fmt.Fprintf(&said, "%s %s %s\r\nHost: %s\r\n", side, r.Method, r.RequestURI, r.Host)
		_ = r.Header.Write(&said)
		w.Header().Set("Set-Cookie", "echo=1")
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.Copy(w, &said)
	default:
		serveBody(w, r)
	}
}

// PEM is the authority behind all certificates, for programs that read it from a file.
func (in *Internet) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: in.ca.Raw})
}
