package proxy

import (
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// trackingHeaders are request fields that say who somebody is and do nothing else:
// identifiers of subscribers that networks and their software add, and identifiers
// for advertising. docs/proxy.md has the same table for people, a test compares them.
// A field that some service needs is not here, however telling it is.
const trackingHeaders = `
X-Uidh                       Verizon's identifier of a subscriber; FCC consent decree DA 16-242 (2016)
X-Acr                        a carrier's "anonymous customer reference"; Access Now, "The Rise of Mobile Tracking Headers" (2015)
X-Vf-Acr                     the same, Vodafone
X-Amobee-1                   Access Now (2015)
X-Amobee-2                   the same
X-Piper-Id                   the same
Tm_user-Id                   the same, Movistar
X-Up-Subno                   the same, of WAP gateways
X-Up-Calling-Line-Id         a telephone number; Mulliner, "Privacy Leaks in Mobile Phone Internet Access" (2010)
X-Msisdn                     the same
Msisdn                       the same
X-Nokia-Msisdn               the same
X-Wap-Msisdn                 the same
X-Wap-Network-Client-Msisdn  the same
X-H3g-Msisdn                 the same
X-Fh-Msisdn                  the same
X-Wap-3gpp-Imsi              a subscriber's IMSI; Vallina-Rodriguez et al., "Header Enrichment or ISP Enrichment?" (2015)
X-Imsi                       the same
X-Ifa                        an advertising identifier, by its name in OpenRTB 2.6 §3.2.18 and IAB Tech Lab's IFA guidelines (2018)
X-Idfa                       the same, Apple
X-Aaid                       the same, Android
X-Gaid                       the same
X-Rida                       the same, Roku
X-Tifa                       the same, Samsung
X-Lgudid                     the same, LG
X-Advertising-Id             the same
`

// What is taken out is counted by these kinds.
const (
	tookHeader    = "header"
	tookReferrer  = "referrer"
	tookCookie    = "cookie"
	tookSetCookie = "set-cookie"
)

func readTrackingHeaders() map[string]bool {
	names := map[string]bool{}
	for line := range strings.Lines(trackingHeaders) {
		if fields := strings.Fields(line); len(fields) > 0 {
			names[fields[0]] = true
		}
	}
	return names
}

// strip takes out of r what follows people about, and reports whether r asks a third
// party: what such a party answers may set no cookie either. took is called for
// each thing taken out.
//
// Never touched are the method, the target, the body, Authorization, Origin, the
// cookies of the site itself, and Sec-GPC and DNT, which are a person's own word: W3C's
// Tracking Preference Expression (2019) forbids intermediaries to add or change it.
func (p *Proxy) strip(r *http.Request, took func(kind string)) (thirdParty bool) {
	for name := range r.Header {
		if p.tracking[name] {
			delete(r.Header, name)
			took(tookHeader)
		}
	}
	here := siteOf(r.Host)
	thirdParty = here != "" && !isNavigation(r) && isForeign(here, cameFrom(r))
	if thirdParty {
		for _, name := range [...]string{"Cookie", "Cookie2"} {
			if _, ok := r.Header[name]; ok {
				delete(r.Header, name)
				took(tookCookie)
			}
		}
	}
	if was := r.Header["Referer"]; len(was) > 0 {
		now := cutReferrer(here, was[0])
		switch {
		case len(was) == 1 && now == was[0]:
		case now == "":
			delete(r.Header, "Referer")
			took(tookReferrer)
		default:
			r.Header["Referer"] = []string{now}
			took(tookReferrer)
		}
	}
	return thirdParty
}

// stripAnswer takes a third party's cookies out of what it answers.
func stripAnswer(resp *http.Response, took func(kind string)) {
	for _, name := range [...]string{"Set-Cookie", "Set-Cookie2"} {
		if _, ok := resp.Header[name]; ok {
			delete(resp.Header, name)
			took(tookSetCookie)
		}
	}
}

// isNavigation reports whether r asks for a page for a person: then the site asked
// is the one that the person goes to, wherever the link stood.
func isNavigation(r *http.Request) bool {
	return r.Header.Get("Upgrade-Insecure-Requests") == "1" || strings.Contains(r.Header.Get("Accept"), "text/html")
}

// cameFrom is the host of the page that had r sent, "" when r does not say.
func cameFrom(r *http.Request) string {
	for _, said := range [...]string{r.Header.Get("Origin"), r.Header.Get("Referer")} {
		if u, err := url.Parse(said); err == nil && isWeb(u) {
			return u.Host
		}
	}
	return ""
}

func isWeb(u *url.URL) bool { return u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") }

// isForeign reports whether host is surely of another site than here.
func isForeign(here, host string) bool {
	there := siteOf(host)
	return there != "" && there != here
}

// siteOf is what a host belongs to: its registrable domain by the public suffix
// list, an address or a name without one as it is; "" for what is no host.
func siteOf(host string) string {
	name, addr, err := normalHost(host)
	switch {
	case err != nil:
		return ""
	case addr.IsValid():
		return addr.String()
	}
	if site, err := publicsuffix.EffectiveTLDPlusOne(string(name)); err == nil {
		return site
	}
	return string(name)
}

// cutReferrer is what a site may know of where its visitor came from: on the same
// site all, from another site the origin, as browsers do by default
// (strict-origin-when-cross-origin), "" where that cannot be told or was encrypted
// (RFC 9110 §10.1.3).
func cutReferrer(here, referrer string) string {
	u, err := url.Parse(referrer)
	if err != nil {
		return ""
	}
	switch {
	case u.Host == "" && u.Scheme == "": // a path of the same host
		return referrer
	case u.Scheme == "https" && !isForeign(here, u.Host):
		return referrer // its own site; the router may be carrying it there encrypted
	case !isWeb(u) || u.Scheme == "https":
		return ""
	case !isForeign(here, u.Host):
		return referrer
	}
	return u.Scheme + "://" + u.Host + "/"
}
