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
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		return fmt.Errorf("enforce: %w", err)
	}
	us := process{uint32(os.Getpid()), strings.TrimSpace(string(comm))}
	news := make(chan struct{}, 1)
	told := make(chan struct{})
	go func() {
		defer close(told)
		tell(news, changed)
	}()
	defer func() { close(news); <-told }()
	k.watched.Store(true)
	defer k.watched.Store(false)
	rules := false            // the transaction that is being told changes more than what sets of others hold
	var missedUntil time.Time // until then what is told may not be all
	for {
		msgs, err := c.Receive()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			// Most likely more than fits: a change, whatever it was. And the kernel drops
			// all further ones, silently, until the last that waits here was read.
			missedUntil = time.Now().Add(time.Second)
			time.Sleep(time.Millisecond) // an error that stays shall not take the processor
		}
		foreign := time.Now().Before(missedUntil)
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
		select {
		case news <- struct{}{}:
		default:
		}
	}
}

// tell calls changed for all news of a while together, until there are no more:
// who changes the rules all the time shall not keep us busy all the time. Watch
// itself may not pause, for what it does not read in time is lost.
func tell(news <-chan struct{}, changed func()) {
	for range news {
		changed()
		time.Sleep(200 * time.Millisecond)
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
