package observe

import "github.com/netcurtain/netcurtain/flow/dissect"

// maxShared bounds the facts that flows share.
const maxShared = 1024

// factsKey are the facts of a handshake, as long as nothing about it is rare.
type factsKey struct {
	version, quic         string
	first, second         string // of the protocols offered
	cipher                uint16
	offered               dissect.Offer
	ech, echOffered, seal bool
	config                uint8
	retried, hello        bool
}

// facts keeps one copy of what many handshakes show alike: a house's devices have a
// few ways to speak TLS, and each copy would cost a flow 180 octets for as long as
// it runs. Who gets one must not change it.
type facts map[factsKey]*dissect.TLS

// share returns the copy that stands for t.
func (f facts) share(t *dissect.TLS) *dissect.TLS {
	if t == nil || t.Cert != nil || len(t.Weak) > 0 || len(t.ALPN) > 2 {
		return t
	}
	key := factsKey{
		version: t.Version, quic: t.QUICVersion, cipher: t.Cipher, offered: t.Offered,
		ech: t.ECH, echOffered: t.ECHOffered, seal: t.ECHSealed, config: t.ECHConfig, retried: t.Retried, hello: t.Hello,
	}
	if len(t.ALPN) > 0 {
		key.first = t.ALPN[0]
	}
	if len(t.ALPN) > 1 {
		key.second = t.ALPN[1]
	}
	if old, ok := f[key]; ok {
		return old
	}
	if len(f) >= maxShared {
		clear(f)
	}
	f[key] = t
	return t
}
