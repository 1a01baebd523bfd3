package dissect

const (
	whyConnectivity = "a connectivity check, clear by design: it asks whether there is an internet"
	whyRevocation   = "a question whether a certificate is revoked, clear by design and signed (OCSP, CRL)"
)

// harmlessHosts are the hosts and paths that systems document, or plainly use,
// for connectivity checks and certificate revocation. An empty path stands for
// every path of a host that serves nothing else. Sorted by host: every clear request
// is looked up here.
var harmlessHosts = [...]struct{ host, path, why string }{
	{"c.pki.goog", "", whyRevocation},
	{"captive.apple.com", "", whyConnectivity},
	{"check.googlezip.net", "", whyConnectivity},
	{"clients1.google.com", "/generate_204", whyConnectivity},
	{"clients3.google.com", "/generate_204", whyConnectivity},
	{"conn-service-eu-04.allawnos.com", "/generate204", whyConnectivity},
	{"connect.rom.miui.com", "/generate_204", whyConnectivity},
	{"connectivity-check.ubuntu.com", "", whyConnectivity},
	{"connectivitycheck.android.com", "", whyConnectivity},
	{"connectivitycheck.gstatic.com", "", whyConnectivity},
	{"connectivitycheck.platform.hicloud.com", "", whyConnectivity},
	{"crl.apple.com", "", whyRevocation},
	{"crl.entrust.net", "", whyRevocation},
	{"crl.globalsign.com", "", whyRevocation},
	{"crl.godaddy.com", "", whyRevocation},
	{"crl.microsoft.com", "", whyRevocation},
	{"crl.pki.goog", "", whyRevocation},
	{"crl.rootca1.amazontrust.com", "", whyRevocation},
	{"crl.sectigo.com", "", whyRevocation},
	{"crl.verisign.com", "", whyRevocation},
	{"crl3.digicert.com", "", whyRevocation},
	{"crl4.digicert.com", "", whyRevocation},
	{"detectportal.firefox.com", "", whyConnectivity},
	{"fedoraproject.org", "/static/hotspot.txt", whyConnectivity},
	{"ipv6.msftconnecttest.com", "", whyConnectivity},
	{"isrg.trustid.ocsp.identrust.com", "", whyRevocation},
	{"mscrl.microsoft.com", "", whyRevocation},
	{"network-test.debian.org", "", whyConnectivity},
	{"nmcheck.gnome.org", "", whyConnectivity},
	{"o.pki.goog", "", whyRevocation},
	{"ocsp.amazontrust.com", "", whyRevocation},
	{"ocsp.apple.com", "", whyRevocation},
	{"ocsp.comodoca.com", "", whyRevocation},
	{"ocsp.digicert.com", "", whyRevocation},
	{"ocsp.entrust.net", "", whyRevocation},
	{"ocsp.globalsign.com", "", whyRevocation},
	{"ocsp.godaddy.com", "", whyRevocation},
	{"ocsp.msocsp.com", "", whyRevocation},
	{"ocsp.pki.goog", "", whyRevocation},
	{"ocsp.quovadisglobal.com", "", whyRevocation},
	{"ocsp.rootca1.amazontrust.com", "", whyRevocation},
	{"ocsp.sectigo.com", "", whyRevocation},
	{"ocsp.starfieldtech.com", "", whyRevocation},
	{"ocsp.usertrust.com", "", whyRevocation},
	{"ocsp.verisign.com", "", whyRevocation},
	{"ocsp2.apple.com", "", whyRevocation},
	{"ocsp2.globalsign.com", "", whyRevocation},
	{"oneocsp.microsoft.com", "", whyRevocation},
	{"ping.archlinux.org", "", whyConnectivity},
	{"play.googleapis.com", "/generate_204", whyConnectivity},
	{"r10.o.lencr.org", "", whyRevocation},
	{"r11.o.lencr.org", "", whyRevocation},
	{"r3.o.lencr.org", "", whyRevocation},
	{"spectrum.s3.amazonaws.com", "/kindle-wifi/wifistub.html", whyConnectivity},
	{"status.geotrust.com", "", whyRevocation},
	{"www.apple.com", "/library/test", whyConnectivity},
	{"www.google.com", "/generate_204", whyConnectivity},
	{"www.gstatic.com", "/generate_204", whyConnectivity},
	{"www.msftconnecttest.com", "", whyConnectivity},
	{"www.msftncsi.com", "", whyConnectivity},
}

// harmlessHost says why a request to a host and path is harmless, or "".
func harmlessHost(host, path string) string {
	from, to := 0, len(harmlessHosts)
	for from < to {
		if mid := (from + to) / 2; harmlessHosts[mid].host < host {
			from = mid + 1
		} else {
			to = mid
		}
	}
	if from == len(harmlessHosts) || harmlessHosts[from].host != host {
		return ""
	}
	if h := &harmlessHosts[from]; h.path == "" || h.path == path {
		return h.why
	}
	return ""
}
