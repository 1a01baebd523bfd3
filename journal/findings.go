package journal

import (
	"crypto/tls"
	"strconv"
	"strings"

	"github.com/netcurtain/netcurtain/flow/dissect"
)

// Findings is what a flow's first bytes gave away beside its protection, as the
// short text in which it is kept, shown and exported. It is comparable, and bounded
// by what dissect may say.
type Findings struct {
	QUICVersion string // "1", "2", …; "" without QUIC
	ECH         bool   // the hello was encrypted: a name that it shows is the front's
	TLSCipher   string // chosen, as IANA calls it: "TLS_AES_128_GCM_SHA256"; "0x1234" for one without a name here
	TLSWeak     string // what is weak in what was chosen, and wrong with the certificate, in words joined by "; "
	// Certificate is what is wrong with the server's: words joined by commas, of
	// "expired", "not-yet", "self-signed", "other-name", "weak-signature", "short-key".
	Certificate       string
	CredentialUser    string // masked: "a…(5)"
	CredentialDefault bool   // a login that everybody knows
	Identifiers       string // kinds that travelled readable and how often: "mac:1,imei:2"
}

// FindingsOf reads them from what was seen.
func FindingsOf(r *dissect.Result) Findings {
	var f Findings
	if t := r.TLS; t != nil {
		f.QUICVersion, f.ECH = t.QUICVersion, t.ECH
		f.TLSWeak = strings.Join(t.Weak, "; ")
		if t.Cipher != 0 {
			f.TLSCipher = tls.CipherSuiteName(t.Cipher)
		}
		if t.Cert != nil {
			f.Certificate = faults(t.Cert)
		}
	}
	if x := r.Exposure; x != nil {
		f.CredentialUser, f.CredentialDefault = x.User, x.Default
		kinds := make([]string, len(x.Identifiers))
		for i, id := range x.Identifiers {
			kinds[i] = id.Kind + ":" + strconv.Itoa(id.Count)
		}
		f.Identifiers = strings.Join(kinds, ",")
	}
	return f
}

func faults(c *dissect.Cert) string {
	var words []string
	for _, x := range []struct {
		is   bool
		word string
	}{
		{c.Expired, "expired"}, {c.NotYet, "not-yet"}, {c.SelfSigned, "self-signed"}, {c.OtherName, "other-name"},
		{c.WeakSign != "" && !c.SelfSigned, "weak-signature"}, // nobody relies on a self-signature
		{c.WeakKey != 0, "short-key"},
	} {
		if x.is {
			words = append(words, x.word)
		}
	}
	return strings.Join(words, ",")
}
