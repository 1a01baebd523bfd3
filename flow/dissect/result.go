package dissect

import "github.com/netcurtain/netcurtain/flow"

// Result is what a flow's own bytes say. It never holds payload.
type Result struct {
	App        string          // "tls", "quic", "http", "mqtt", "dns", …; "unknown"
	ServerName string          // lower case, no port, no trailing dot; "" when there is none
	NameFrom   string          // "sni", "host", "qname", "dhcp" or ""
	Protection flow.Protection // zero: Can't tell
	Reason     string          // why, in plain words for a person
	Guessed    bool            // an unknown protocol, judged by how its bytes look: to be believed of several flows
	Harmless   bool            // clear, but of no concern: NTP, OCSP, connectivity checks, LAN discovery
	TLS        *TLS            // set for TLS, QUIC and DTLS
	// Credentials says which kind of credential travelled readable ("http-basic",
	// "mqtt-password", …), never the credential itself.
	Credentials string
	// Exposure is what else of a person could be read; nil when nothing was seen.
	Exposure *Exposure
	// PortMap is the port that the flow asks the router to open; nil for most.
	PortMap *PortMap
	// Path is the first HTTP request's method and path class ("GET /api"), cut
	// at the query, at most two segments; for the proxy's rules and the page.
	Path string
}

// TLS is what a handshake shows to anybody on the way.
type TLS struct {
	Version     string   // negotiated, else the highest offered: "1.3", "1.2", …; "" when not seen
	QUICVersion string   // "1", "2", "draft-29", "gquic-46", …; "" for TLS over TCP
	ALPN        []string // as offered
	Cipher      uint16   // negotiated; 0 when not seen
	ECH         bool     // encrypted_client_hello offered and the name is the outer one
	ECHOffered  bool     // the extension was there, which may be GREASE beside the real name
	// ECHSealed reports that the extension has the form of a real one; false where it
	// was offered says GREASE. ECHConfig is then the number of the server's key: the
	// same in several hellos for one name speaks for a real one, GREASE draws it anew.
	ECHSealed bool
	ECHConfig uint8
	Retried   bool // the server asked for a second hello (HelloRetryRequest)
	Hello     bool // a ClientHello was read
	// Offered is what the client was ready for, whatever was then chosen.
	Offered Offer
	// Weak names for a person what is weak in what was chosen, and wrong with the
	// server's certificate; nil when nothing is, or when no answer was seen.
	Weak []string
	Cert *Cert // the server's, up to TLS 1.2 and when it was captured
}

// Offer is what a ClientHello is ready for.
type Offer struct {
	Version string   // the highest: "1.3", "1.2", …; "" when no hello was read
	Weak    Weakness // of any version or cipher in it
}
