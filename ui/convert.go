package ui

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/ui/api"
)

func toDevice(d devices.Device, t journal.DeviceTotals) api.Device {
	out := api.Device{
		ID: string(d.ID), Name: d.Name, NameFrom: d.NameFrom.String(), Hostname: d.Hostname,
		Maker: d.Maker, Kind: string(d.Kind), KindFrom: d.KindFrom, Personal: !d.Kind.Smart(),
		MACs: []string{}, Addresses: []string{},
		Mode: d.Mode.String(), Log: d.Log.String(), Carry: d.CarryEncrypted, Strip: d.StripTracking, FirstSeen: d.FirstSeen, LastSeen: d.LastSeen,
		Totals: api.Totals{
			BytesOut: t.BytesOut, BytesIn: t.BytesIn, Flows: t.Flows, ReadableFlows: t.ReadableFlows,
			ReadableBytes: t.ReadableBytes, Weak: t.Weak, Lookups: t.Lookups, Blocked: t.Blocked,
			Organisations: orEmpty(t.Organisations), LastActive: orNull(t.LastActive),
		},
	}
	if out.Name == "" {
		out.Name = out.ID
	}
	for i, m := range d.MACs {
		out.MACs = append(out.MACs, m.String())
		out.Randomised = out.Randomised || i == 0 && m.IsRandomised()
	}
	for _, a := range d.Addrs {
		out.Addresses = append(out.Addresses, a.String())
	}
	return out
}

func toDestination(t journal.DestinationTotals) api.Destination {
	d := api.Destination{
		Name: t.Name, NameSource: t.NameSource, Organisation: t.Organisation, Purpose: t.Purpose, Country: t.Country, Breaks: t.Breaks,
		Why: t.Why, Readable: t.Readable, Encrypted: t.Encrypted, CannotTell: t.CannotTell, Harmless: t.Harmless, Weak: t.Weak, Carried: t.Carried,
		BytesOut: t.BytesOut, BytesIn: t.BytesIn, Flows: t.Flows, Lookups: t.Lookups, Blocked: t.Blocked,
		Verdict: t.Verdict, Reason: t.Reason, Rule: t.Rule, List: t.List, First: t.First, Last: t.Last,
	}
	// The worst counts: one readable flow is enough to be read.
	switch {
	case t.Readable > 0:
		d.Protection = "readable"
	case t.CannotTell > 0:
		d.Protection = "cannot-tell"
	case t.Encrypted > 0:
		d.Protection = "encrypted"
	case t.Harmless > 0:
		d.Protection = "harmless"
	}
	return d
}

func toFlow(f journal.FlowRow) api.Flow {
	return api.Flow{
		ID: f.ID, Device: string(f.Device), First: f.First, Last: f.Last, L4: f.Proto, Src: addrPort(f.Src), Dst: addrPort(f.Dst),
		Protocol: f.App, Protection: f.Protection, Harmless: f.Harmless, Why: f.Why, Name: f.Name, NameSource: f.NameSource,
		TLSVersion: f.TLSVersion, Organisation: f.Organisation, Purpose: f.Purpose, Country: f.Country,
		BytesOut: f.BytesOut, BytesIn: f.BytesIn, PacketsOut: f.PacketsOut, PacketsIn: f.PacketsIn,
		Verdict: f.Verdict, Reason: f.Reason, Rule: f.Rule, List: f.List, Proxied: f.Proxied, Credentials: f.Credentials,
		QUICVersion: f.QUICVersion, ECH: f.ECH, TLSCipher: f.TLSCipher, TLSWeak: f.TLSWeak, Certificate: f.Certificate,
		CredentialUser: f.CredentialUser, CredentialDefault: f.CredentialDefault, Identifiers: f.Identifiers,
		NameAmbiguous: f.Ambiguous, Inbound: f.Inbound, PortMapped: f.PortMapped, ByNameOnly: f.ByNameOnly,
		CarriedEncrypted: f.Carried, Parts: max(f.Parts, 1),
	}
}

func toLookup(l journal.LookupRow) api.Lookup {
	return api.Lookup{
		ID: l.ID, At: l.At, Device: string(l.Device), Name: l.Name, Type: typeName(l.Type), Rcode: rcodeName(l.Rcode),
		Verdict: l.Verdict, Noted: l.Noted, Reason: l.Reason, Rule: l.Rule, List: l.List,
		Organisation: l.Organisation, Redirected: l.Redirected, Count: max(l.Count, 1),
	}
}

func toEvent(e journal.EventRow) api.Event {
	return api.Event{ID: e.ID, At: e.At, Device: string(e.Device), Kind: string(e.Kind), Subject: e.Subject, Text: e.Text}
}

func toRule(r policy.Rule) api.Rule {
	return api.Rule{
		ID: r.ID, Action: r.Action.String(), Name: string(r.Name), Path: r.Path, Device: string(r.Device),
		Until: orNull(r.Until), Created: r.Created, By: r.By,
	}
}

// addrPort is "" for a flow whose ends were not kept.
func addrPort(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// typeName is the mnemonic of a DNS type (IANA), or its RFC 3597 form.
func typeName(t uint16) string {
	switch t {
	case 1:
		return "A"
	case 2:
		return "NS"
	case 5:
		return "CNAME"
	case 6:
		return "SOA"
	case 12:
		return "PTR"
	case 15:
		return "MX"
	case 16:
		return "TXT"
	case 28:
		return "AAAA"
	case 33:
		return "SRV"
	case 35:
		return "NAPTR"
	case 43:
		return "DS"
	case 48:
		return "DNSKEY"
	case 64:
		return "SVCB"
	case 65:
		return "HTTPS"
	case 255:
		return "ANY"
	}
	return fmt.Sprintf("TYPE%d", t)
}

// rcodeName is the mnemonic of a DNS response code (IANA).
func rcodeName(c int) string {
	names := [...]string{"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"}
	if c >= 0 && c < len(names) {
		return names[c]
	}
	return fmt.Sprintf("RCODE%d", c)
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func cmpDesc(a, b int64) int { return cmp.Compare(b, a) }

// toDays adds up by day what is kept by device, organisation and protection, the newest
// day first.
func toDays(rows []journal.DayTotals) []api.Day {
	days := []api.Day{}
	for len(rows) > 0 { // of one day they stand together
		n := slices.IndexFunc(rows, func(r journal.DayTotals) bool { return !r.Day.Equal(rows[0].Day) })
		if n < 0 {
			n = len(rows)
		}
		days = append(days, toDay(rows[:n]))
		rows = rows[n:]
	}
	return days
}

func toDay(rows []journal.DayTotals) api.Day {
	d := api.Day{Day: rows[0].Day.Format(time.DateOnly), Organisations: []string{}}
	sent := map[string]int64{}
	for _, r := range rows {
		d.BytesOut, d.BytesIn = d.BytesOut+r.BytesOut, d.BytesIn+r.BytesIn
		d.Flows, d.Lookups, d.Blocked = d.Flows+r.Flows, d.Lookups+r.Lookups, d.Blocked+r.Blocked
		if r.Protection == "readable" {
			d.ReadableFlows, d.ReadableBytes = d.ReadableFlows+r.Flows, d.ReadableBytes+r.BytesOut
		}
		if r.Organisation != "" && r.BytesOut+r.BytesIn > 0 { // known, and more than looked up
			sent[r.Organisation] += r.BytesOut
		}
	}
	d.Organisations = slices.AppendSeq(d.Organisations, maps.Keys(sent))
	slices.SortFunc(d.Organisations, func(a, b string) int { return cmp.Or(cmp.Compare(sent[b], sent[a]), cmp.Compare(a, b)) })
	return d
}
