package atlas

import (
	"testing"

	"github.com/netcurtain/netcurtain/devices"
)

func TestMaker(t *testing.T) {
	for mac, want := range map[string]string{
		"d0:d0:03:01:02:03": "Samsung Electronics",
		"d0:4d:2c:00:00:00": "Roku",
		"d0:4d:2c:ff:ff:ff": "Roku",
		"30:fb:b8:12:34:56": "Huawei Technologies",
		"44:47:cc:12:34:56": "Hangzhou Hikvision Digital",
		"68:ec:8a:12:34:56": "IKEA of Sweden",
		// 28 bits: the 24-bit block is the IEEE's own.
		"24:15:10:2f:ff:ff": "Nile Global",
		"24:15:10:50:00:00": "Ganzhou Dehuida Technology",
		"d0:14:11:90:00:01": "Airthings",
		// 36 bits, MA-S and IAB.
		"70:b3:d5:03:af:ff": "Ochno",
		"70:b3:d5:15:50:00": "Sanwa New Tec",
		"00:50:c2:1f:a1:23": "SP Controls",
		"40:d8:55:01:00:00": "APG Cash Drawer",
		// Nobody's.
		"70:b3:d5:ff:ff:ff": "", // a divided block, this piece not assigned
		"02:00:5e:10:00:01": "", // locally administered
		"d2:d0:03:01:02:03": "", // Samsung's with the local bit: a phone's random address
		"01:00:5e:00:00:fb": "", // multicast
		"ff:ff:ff:ff:ff:ff": "",
		"00:00:00:00:00:00": "",
	} {
		m, err := devices.ParseMAC(mac)
		if err != nil {
			t.Fatal(err)
		}
		if got := Maker(m); got != want {
			t.Errorf("Maker(%s) = %q, want %q", mac, got, want)
		}
	}
	m := devices.MAC{0x40, 0xd8, 0x55, 0x01, 0, 0}
	if n := testing.AllocsPerRun(100, func() { Maker(m) }); n != 0 {
		t.Errorf("Maker allocates %v times", n)
	}
}

func TestTableOfMakers(t *testing.T) {
	const budget = 700_000 // octets of flash
	if len(makers) > budget {
		t.Errorf("the table has %d octets, %d are allowed", len(makers), budget)
	}
	names := int(be(makers[12:16]))
	if names < 20000 {
		t.Errorf("only %d names", names)
	}
	for i := range names {
		if n := makerName(i); n == "" || len(n) > 26 {
			t.Errorf("name %d is %q", i, n)
		}
	}
}

// Whatever the address, Maker answers.
func FuzzMaker(f *testing.F) {
	f.Add([]byte{0xd0, 0x4d, 0x2c, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 6 {
			return
		}
		m := devices.MAC(b[:6])
		if Maker(m) != "" && (m.IsRandomised() || m.IsGroup()) {
			t.Errorf("%s names a maker", m)
		}
	})
}

func BenchmarkMaker(b *testing.B) {
	m := devices.MAC{0x40, 0xd8, 0x55, 0x01, 0, 0}
	for b.Loop() {
		Maker(m)
	}
}
