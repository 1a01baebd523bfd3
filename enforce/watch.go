//go:build linux

package enforce

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
)

// Watch calls changed whenever another program changed the kernel's rules, until
// ctx ends: somebody loaded a firewall anew or flushed ours, and the next Set
// mends it. Without Watch, Set looks by itself each time. changed must not block.
func (k *Kernel) Watch(ctx context.Context, changed func()) error {
	const nftables = 1 << (7 - 1) // NFNLGRP_NFTABLES
	c, err := netlink.Dial(syscall.NETLINK_NETFILTER, &netlink.Config{Groups: nftables})
	if err != nil {
		return fmt.Errorf("enforce: watching the kernel's rules: %w", mend(err))
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	// Too many changes at once are a change, whatever they were.
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		return fmt.Errorf("enforce: %w", err)
	}
	us := process{uint32(os.Getpid()), strings.TrimSpace(string(comm))}
	k.watched.Store(true)
	defer k.watched.Store(false)
	rules := false // the transaction that is being told changes more than what sets of others hold
	for {
		msgs, err := c.Receive()
		if ctx.Err() != nil {
			return nil
		}
		foreign := err != nil // most likely more than fits
		for _, m := range msgs {
			rules = rules || !fillsTheirSet(m)
			who, ok := changedBy(m)
			if !ok {
				continue
			}
			foreign = foreign || rules && who.id != us.id && who.name != us.name
			rules = false
		}
		if !foreign {
			continue
		}
		k.othersChanged.Store(true)
		changed()
		// Who changes the rules all the time shall not keep us busy all the time.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// process is who changed the rules, as the kernel tells it.
type process struct {
	id   uint32
	name string
}

// Messages of nf_tables, NFNL_SUBSYS_NFTABLES << 8 with NFT_MSG_….
const (
	newSetElement = 10<<8 | 12
	delSetElement = 10<<8 | 14
	newGeneration = 10<<8 | 15
)

// fillsTheirSet reports whether a message ends a transaction or tells of elements of
// another program's set. dnsmasq puts every answer into one, where it is told to:
// that changes no rule.
func fillsTheirSet(m netlink.Message) bool {
	switch m.Header.Type {
	case newGeneration:
		return true
	case newSetElement, delSetElement:
		table := attribute(m, 1) // NFTA_SET_ELEM_LIST_TABLE
		return table != "" && table != mainTable && table != cutTable
	}
	return false
}

func attribute(m netlink.Message, which uint16) string {
	if len(m.Data) < 4 {
		return ""
	}
	ad, err := netlink.NewAttributeDecoder(m.Data[4:])
	if err != nil {
		return ""
	}
	for ad.Next() {
		if ad.Type() == which {
			return string(bytes.TrimRight(ad.Bytes(), "\x00"))
		}
	}
	return ""
}

// changedBy reads the message that ends a transaction.
func changedBy(m netlink.Message) (who process, ok bool) {
	if m.Header.Type != newGeneration || len(m.Data) < 4 {
		return who, false
	}
	ad, err := netlink.NewAttributeDecoder(m.Data[4:])
	if err != nil {
		return who, false
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		switch ad.Type() {
		case 2: // NFTA_GEN_PROC_PID
			who.id = ad.Uint32()
		case 3: // NFTA_GEN_PROC_NAME
			who.name = string(bytes.TrimRight(ad.Bytes(), "\x00"))
		}
	}
	return who, ad.Err() == nil
}
