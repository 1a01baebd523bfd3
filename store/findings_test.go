package store_test

import (
	"os"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
	"github.com/netcurtain/netcurtain/journal"
)

// leaky is a flow of which everything that can be found was found.
func leaky(h *house, d devices.ID, level devices.LogLevel) journal.Entry {
	e := talk(d, level, h.now(), "old.example.com", flow.Encrypted, 100, 200)
	e.Flow.Seen.TLS = &dissect.TLS{
		Version: "1.0", Cipher: 0x0005, ECH: true, QUICVersion: "1",
		Weak: []string{"its version (1.0) is outdated", "the certificate is self-signed"},
		Cert: &dissect.Cert{Expired: true, SelfSigned: true, OtherName: true, WeakSign: "MD5", WeakKey: 1024},
	}
	e.Flow.Seen.Credentials = "http-basic"
	e.Flow.Seen.Exposure = &dissect.Exposure{User: "a…(5)", Default: true, Identifiers: []dissect.Identifier{{Kind: "mac", Count: 1}, {Kind: "imei", Count: 2}}}
	e.Flow.Ambiguous, e.Flow.Inbound, e.Flow.PortMapped, e.Flow.ByNameOnly, e.Flow.CarriedEncrypted = true, true, true, true, true
	return e
}

var allFindings = journal.Findings{
	QUICVersion: "1", ECH: true, TLSCipher: "TLS_RSA_WITH_RC4_128_SHA",
	TLSWeak:     "its version (1.0) is outdated; the certificate is self-signed",
	Certificate: "expired,self-signed,other-name,short-key", CredentialUser: "a…(5)", CredentialDefault: true, Identifiers: "mac:1,imei:2",
}

func TestWhatAFlowGaveAwayIsKept(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	more := leaky(h, tv, devices.LogNames)
	more.Flow.Part = 1
	h.record(leaky(h, tv, devices.LogNames), more, talk(tv, devices.LogNames, h.now(), "old.example.com", flow.Encrypted, 1, 1))
	rows := flowsOf(t, h, tv)
	if len(rows) != 2 {
		t.Fatalf("%d rows, two wanted", len(rows))
	}
	plain, r := rows[0], rows[1]
	equal(t, "findings", r.Findings, allFindings)
	if !r.Ambiguous || !r.Inbound || !r.PortMapped || !r.ByNameOnly || !r.Carried || r.Parts != 2 {
		t.Errorf("the row is %+v", r)
	}
	if plain.Findings != (journal.Findings{}) || plain.Ambiguous || plain.Inbound || plain.Carried || plain.Parts != 1 {
		t.Errorf("the flow beside it is %+v", plain)
	}
	dests, err := h.Destinations(t.Context(), tv, start)
	must(t, err)
	if len(dests) != 1 || dests[0].Flows != 2 || dests[0].Weak != 1 || dests[0].Carried != 1 {
		t.Errorf("destinations: %+v", dests)
	}
}

// Of a counted device it is known how often its encryption was weak, and not whose it was.
func TestWhatACountedDeviceGaveAwayIsCounted(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	h.record(leaky(h, phone, devices.LogCounts), leaky(h, tv, devices.LogNames))
	if _, err := h.Forget(t.Context(), tv); err != nil {
		t.Fatal(err)
	}
	for _, d := range []devices.ID{phone, tv} {
		dests, err := h.Destinations(t.Context(), d, start.Add(-time.Hour))
		must(t, err)
		if len(dests) != 1 || dests[0].Name != "" || dests[0].Weak != 1 || dests[0].Carried != 1 {
			t.Errorf("destinations of %s: %+v", d, dests)
		}
	}
	if n := ask(t, h.cfg.LedgerPath, "SELECT count(*) FROM seen WHERE id != 0"); n != "0" {
		t.Errorf("%s rows say what a counted flow gave away", n)
	}
}

// What was told is known again after the ledger was lost with the power, and
// forgotten with its device.
func TestWhatWasToldIsKnownAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir)
	told := func(d devices.ID, level devices.LogLevel) journal.Entry {
		return journal.Entry{At: h.now(), Device: d, Log: level, Event: &journal.Event{Kind: journal.EventWeakTLS, Subject: "old.example RC4", Text: "used RC4: old.example"}}
	}
	h.record(told(tv, devices.LogNames), told(phone, devices.LogCounts), told("plug", devices.LogNames))
	h.stop()
	must(t, os.Remove(h.cfg.LedgerPath))
	h = open(t, dir)
	if _, err := h.Forget(t.Context(), "plug"); err != nil {
		t.Fatal(err)
	}
	rows, err := h.Told(t.Context())
	must(t, err)
	for i := range rows {
		rows[i].ID = 0
	}
	equal(t, "told", rows, []journal.EventRow{
		{At: start, Device: "plug", Kind: journal.EventWeakTLS},
		{At: start, Device: phone, Kind: journal.EventWeakTLS},
		{At: start, Device: tv, Kind: journal.EventWeakTLS, Subject: "old.example RC4"},
	})
}
