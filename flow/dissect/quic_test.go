package dissect

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/netcurtain/netcurtain/flow"
)

// rfcCrypto is the CRYPTO frame of RFC 9001 §A.2: a hello for example.com.
const rfcCrypto = `060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e868
04fe3a47f06a2b69484c00000413011302010000c000000010000e00000b6578
616d706c652e636f6dff01000100000a00080006001d00170018001000070005
04616c706e000500050100000000003300260024001d00209370b2c9caa47fba
baf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b000302030400
0d0010000e0403050306030203080408050806002d00020101001c0002400100
3900320408ffffffffffffffff05048000ffff07048000ffff08011001048000
75300901100f088394c8f03e51570806048000ffff`

const rfcDCID = "8394c8f03e515708"

// initial is one protected client Initial of 1200 bytes or more.
func initial(t testing.TB, version uint32, keyDCID, dcid []byte, number uint32, frames []byte) []byte {
	t.Helper()
	keys, ok := clientKeys(version, keyDCID)
	if !ok {
		t.Fatal("no keys for this version")
	}
	first := byte(0xc3)
	if version == quicV2 {
		first = 0xd3
	}
	frames = append(bytes.Clone(frames), make([]byte, max(0, 1162-len(frames)))...)
	b := []byte{first}
	b = binary.BigEndian.AppendUint32(b, version)
	b = append(append(b, byte(len(dcid))), dcid...)
	b = append(b, 0, 0) // no source connection ID, no token
	n := 4 + len(frames) + 16
	b = append(b, 0x40|byte(n>>8), byte(n))
	at := len(b)
	b = binary.BigEndian.AppendUint32(b, number)
	nonce := keys.iv
	binary.BigEndian.PutUint32(nonce[8:], binary.BigEndian.Uint32(nonce[8:])^number)
	b = keys.aead.Seal(b, nonce[:], frames, bytes.Clone(b))
	var mask [aes.BlockSize]byte
	keys.hp.Encrypt(mask[:], b[at+4:at+20])
	b[0] ^= mask[0] & 0x0f
	for i := range 4 {
		b[at+i] ^= mask[1+i]
	}
	return b
}

// The published packets: header and first bytes of what is protected.
func TestPublishedInitials(t *testing.T) {
	for _, tc := range []struct {
		name    string
		version uint32
		want    string
	}{
		{"RFC 9001 A.2", quicV1, "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9b"},
		{"RFC 9369 A.2", quicV2, "d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485dd04de806071"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dcid := unhex(t, rfcDCID)
			b := initial(t, tc.version, dcid, dcid, 2, unhex(t, rfcCrypto))
			if got := hex.EncodeToString(b[:len(tc.want)/2]); got != tc.want {
				t.Fatalf("protected\n got %s\nwant %s", got, tc.want)
			}
			r := talk(flow.UDP, 443, "> "+string(b))
			if r.App != "quic" || r.ServerName != "example.com" || r.Protection != flow.Encrypted || len(r.TLS.ALPN) != 1 || r.TLS.ALPN[0] != "alpn" {
				t.Errorf("%+v %+v", r, r.TLS)
			}
		})
	}
}

// crypto cuts a hello into CRYPTO frames of n bytes, in random order.
func cryptoFrames(hello []byte, n int, seed uint64) [][]byte {
	var out [][]byte
	for at := 0; at < len(hello); at += n {
		end := min(at+n, len(hello))
		f := []byte{0x06, 0x80, 0, byte(at >> 8), byte(at), 0x40 | byte((end-at)>>8), byte(end - at)}
		out = append(out, append(f, hello[at:end]...))
	}
	r := rand.New(rand.NewPCG(seed, 1))
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func TestHelloOverDatagrams(t *testing.T) {
	hello := goHello(t, clientConfig())[5:]
	first, later := unhex(t, rfcDCID), unhex(t, "0102030405060708")
	frames := cryptoFrames(hello, 100, 7)
	half := len(frames) / 2
	ping := []byte{0x01, 0x02, 0x00, 0x00, 0x00, 0x00} // PING, ACK
	a := append(bytes.Clone(ping), bytes.Join(frames[:half], nil)...)
	b := append(bytes.Clone(ping), bytes.Join(frames[half:], nil)...)

	t.Run("another connection ID later", func(t *testing.T) {
		r := talk(flow.UDP, 443,
			"> "+string(initial(t, quicV1, first, first, 0, a)),
			"> "+string(initial(t, quicV1, first, later, 1, b)))
		if r.ServerName != site {
			t.Errorf("%+v", r)
		}
	})
	t.Run("new keys after Retry", func(t *testing.T) {
		retry := append([]byte{0xf0, 0, 0, 0, 1, 0, 8}, later...)
		retry = append(retry, make([]byte, 40)...)
		r := talk(flow.UDP, 443,
			"> "+string(initial(t, quicV1, first, first, 0, a)),
			"< "+string(retry),
			"> "+string(initial(t, quicV1, later, later, 1, a)),
			"> "+string(initial(t, quicV1, later, later, 2, b)))
		if r.ServerName != site {
			t.Errorf("%+v", r)
		}
	})
	t.Run("coalesced", func(t *testing.T) {
		both := append(initial(t, quicV1, first, first, 0, a), initial(t, quicV1, first, first, 1, b)...)
		if r := talk(flow.UDP, 443, "> "+string(both)); r.ServerName != site {
			t.Errorf("%+v", r)
		}
	})
	t.Run("half of it", func(t *testing.T) {
		r := talk(flow.UDP, 443, "> "+string(initial(t, quicV1, first, first, 0, a)))
		if r.App != "quic" || r.ServerName != "" || r.Protection != flow.Encrypted {
			t.Errorf("%+v", r)
		}
	})
}

// A real client's first datagrams.
func TestQUICGoClient(t *testing.T) {
	for _, version := range []quic.Version{quic.Version1, quic.Version2} {
		t.Run(version.String(), func(t *testing.T) {
			pc, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer pc.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			go quic.DialAddr(ctx, pc.LocalAddr().String(), //nolint:errcheck // nobody answers
				&tls.Config{ServerName: site, NextProtos: []string{"h3"}}, &quic.Config{Versions: []quic.Version{version}})
			c := New(flow.UDP, 443)
			buf := make([]byte, 2000)
			for !c.Done() {
				if err := pc.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
					t.Fatal(err)
				}
				n, _, err := pc.ReadFrom(buf)
				if err != nil {
					t.Fatal(err)
				}
				c.Feed(flow.Orig, packet(flow.UDP, flow.Orig, 443, 0, buf[:n]))
			}
			r := c.Result()
			if r.App != "quic" || r.ServerName != site || r.TLS.ALPN[0] != "h3" || !r.TLS.Hello {
				t.Errorf("%+v %+v", r, r.TLS)
			}
		})
	}
}

func TestGoogleQUIC(t *testing.T) {
	chlo := "CHLO\x02\x00\x00\x00PAD\x00\x04\x00\x00\x00SNI\x00\x13\x00\x00\x00----www.example.com"
	old := "\x0d12345678Q043\x01" + "hash-of-12bytes\xa0\x01\x04\x00" + chlo
	middle := "\xc3Q046\x5012345678\x00\x00\x00\x01hash-of-12bytes\xa0\x01\x04\x00" + chlo
	for _, s := range []string{old, middle} {
		r := talk(flow.UDP, 443, "> "+s)
		if r.App != "gquic" || r.ServerName != "www.example.com" || r.Protection != flow.Encrypted {
			t.Errorf("%+v", r)
		}
	}
}

func TestVersionNegotiation(t *testing.T) {
	if r := talk(flow.UDP, 443, "< \x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"); r.App != "quic" {
		t.Errorf("%+v", r)
	}
	if r := talk(flow.UDP, 443, "< \x80\x00\x00\x00\x00\x00\x00abcd"); r.App != "unknown" {
		t.Errorf("%+v", r)
	}
}

func FuzzQUICInitial(f *testing.F) {
	dcid := []byte("\x83\x94\xc8\xf0\x3e\x51\x57\x08")
	f.Add(unhex(f, rfcCrypto), false)
	f.Add([]byte{0x02, 0, 0, 5, 0, 6, 0, 1, 1, 0x1c, 0, 0, 1, 'x'}, true)
	f.Fuzz(func(t *testing.T, frames []byte, again bool) {
		if len(frames) > 1400 {
			return
		}
		c := New(flow.UDP, 443)
		b := initial(t, quicV1, dcid, dcid, 0, frames)
		c.Feed(flow.Orig, packet(flow.UDP, flow.Orig, 443, 0, b))
		if again {
			c.Feed(flow.Orig, packet(flow.UDP, flow.Orig, 443, 0, initial(t, quicV1, dcid, dcid, 1, frames)))
		}
		if r := c.Result(); r.App != "quic" || r.Protection != flow.Encrypted {
			t.Errorf("%+v", r)
		}
	})
}
