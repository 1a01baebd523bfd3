package dissect

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"time"
)

// Limits of what is read of a server's certificate.
const (
	maxLeaf      = 8 << 10 // bytes of the certificate itself; what signs it is not read
	maxCertNames = 8
	minRSA       = 2048 // bits; less is weak
)

// Cert is what a server's certificate says, which up to TLS 1.2 travels in clear.
// It was read, not verified: whether it is trusted is the device's to know.
type Cert struct {
	Names      []string  // host names and addresses that it is for, lower case, at most 8; wildcards as "*.example.com"
	NotBefore  time.Time // UTC
	NotAfter   time.Time // UTC
	Expired    bool      // at the time of the packet
	NotYet     bool      // not valid yet at the time of the packet
	SelfSigned bool      // it names itself as its issuer
	OtherName  bool      // it is not for the name that the client asked for
	WeakSign   string    // "MD5" or "SHA-1" when signed with that, else ""
	WeakKey    int       // bits of an RSA key that is too short, else 0
}

// serverCertificate is the first certificate of the Certificate message that
// follows the ServerHello at the start of b (RFC 5246 §7.4.2). It answers NotTLS
// when another message follows, as where a session is resumed.
func serverCertificate(b []byte) ([]byte, Status) {
	msgs, st := joinRecords(b)
	more := func() ([]byte, Status) {
		if st == NeedMore {
			return nil, NeedMore
		}
		return nil, NotTLS
	}
	if len(msgs) < 4 {
		return more()
	}
	at := 4 + size24(msgs[1:])
	if at > maxHello {
		return nil, NotTLS
	}
	if len(msgs) <= at {
		return more()
	}
	m := msgs[at:]
	if m[0] != hsCertificate {
		return nil, NotTLS
	}
	if len(m) < 10 { // type, size of the message, of the list, of the first
		return more()
	}
	n := size24(m[7:])
	if n == 0 || n > maxLeaf || n > size24(m[4:]) {
		return nil, NotTLS
	}
	if len(m) < 10+n {
		return more()
	}
	return m[10 : 10+n], Complete
}

func size24(b []byte) int { return int(b[0])<<16 | int(binary.BigEndian.Uint16(b[1:])) }

// joinRecords is the content of the handshake records at the start of b. NeedMore
// says that more may follow; one record, or part of one, is not copied.
func joinRecords(b []byte) ([]byte, Status) {
	var joined []byte
	for n := 0; ; n++ {
		frag, rest, st := nextRecord(b)
		if n == 0 {
			joined = frag[:len(frag):len(frag)]
		} else {
			joined = append(joined, frag...)
		}
		if st != Complete {
			return joined, st
		}
		b = rest
	}
}

// readCertificate reads a certificate in DER. at is the packet's time; when it is
// zero nothing is said about validity. It is nil when der is no certificate.
func readCertificate(der []byte, asked string, at time.Time) *Cert {
	x, err := x509.ParseCertificate(der)
	if err != nil {
		return nil
	}
	c := &Cert{NotBefore: x.NotBefore.UTC(), NotAfter: x.NotAfter.UTC()}
	for _, n := range x.DNSNames {
		c.addName(n)
	}
	for _, ip := range x.IPAddresses {
		if len(c.Names) < maxCertNames {
			c.Names = append(c.Names, ip.String())
		}
	}
	if len(c.Names) == 0 {
		c.addName(x.Subject.CommonName)
	}
	if !at.IsZero() {
		c.Expired, c.NotYet = at.After(x.NotAfter), at.Before(x.NotBefore)
	}
	c.SelfSigned = bytes.Equal(x.RawSubject, x.RawIssuer) &&
		(len(x.AuthorityKeyId) == 0 || bytes.Equal(x.AuthorityKeyId, x.SubjectKeyId))
	c.OtherName = asked != "" && len(x.DNSNames)+len(x.IPAddresses) > 0 && x.VerifyHostname(asked) != nil
	switch x.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA:
		c.WeakSign = "MD5"
	case x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		c.WeakSign = "SHA-1"
	}
	if k, ok := x.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() < minRSA {
		c.WeakKey = k.N.BitLen()
	}
	return c
}

func (c *Cert) addName(n string) {
	if len(c.Names) == maxCertNames {
		return
	}
	star := ""
	if len(n) > 2 && n[:2] == "*." {
		star, n = n[:2], n[2:]
	}
	if host := hostName([]byte(n)); host != "" {
		c.Names = append(c.Names, star+host)
	}
}

// words names what is wrong with the certificate for a person.
func (c *Cert) words() []string {
	var w []string
	if c.Expired {
		w = append(w, "the certificate expired on "+c.NotAfter.Format(time.DateOnly))
	}
	if c.NotYet {
		w = append(w, "the certificate is valid only from "+c.NotBefore.Format(time.DateOnly))
	}
	if c.SelfSigned {
		w = append(w, "the certificate is self-signed")
	}
	if c.OtherName {
		w = append(w, "the certificate is for another name")
	}
	if c.WeakSign != "" && !c.SelfSigned { // nobody relies on a self-signature
		w = append(w, "the certificate is signed with "+c.WeakSign)
	}
	if c.WeakKey != 0 {
		w = append(w, "the certificate's key is short")
	}
	return w
}
