package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/store"
	"github.com/netcurtain/netcurtain/ui"
)

// household fits store, registry and engine to the pages.
type household struct{ d *daemon }

var _ ui.House = household{}

func (h household) Devices(now time.Time) []devices.Device { return h.d.registry.All(now) }

// SetMode takes hold in the kernel before it returns, so that it can be said what
// ended for it.
func (h household) SetMode(ctx context.Context, id devices.ID, m devices.Mode) (ended int, err error) {
	if err := h.chose(ctx, h.d.store.SetMode(ctx, id, m, ui.By(ctx))); err != nil {
		return 0, err
	}
	dev, ok := h.d.registry.ByID(id)
	if !ok || !h.d.on.Load() {
		return 0, nil
	}
	if err := h.d.apply(ctx); err != nil {
		h.d.log.Warn("the kernel does not follow yet", "error", err) // keepKernel goes on trying, and says so
	}
	ended = h.d.kernel.Ended(dev.MACs...)
	if h.d.carrier != nil {
		h.d.carrier.Reconsider() // not before the kernel has counted what runs
	}
	return ended, nil
}

func (h household) SetKind(ctx context.Context, id devices.ID, k devices.Kind) error {
	return h.chose(ctx, h.d.store.SetKind(ctx, id, k, ui.By(ctx)))
}

func (h household) SetName(ctx context.Context, id devices.ID, name string) error {
	return h.chose(ctx, h.d.store.SetName(ctx, id, name, ui.By(ctx)))
}

func (h household) SetCarry(ctx context.Context, id devices.ID, on bool) error {
	return h.chose(ctx, h.d.store.SetCarry(ctx, id, on, ui.By(ctx)))
}

func (h household) SetStrip(ctx context.Context, id devices.ID, on bool) error {
	return h.chose(ctx, h.d.store.SetStrip(ctx, id, on, ui.By(ctx)))
}

// SetLog changes the level, and forgets the names written until now when they
// shall not be written any more.
func (h household) SetLog(ctx context.Context, id devices.ID, l devices.LogLevel) error {
	if err := h.chose(ctx, h.d.store.SetLog(ctx, id, l, ui.By(ctx))); err != nil {
		return err
	}
	if l == devices.LogNames {
		return nil
	}
	_, err := h.d.store.Forget(ctx, id)
	return err
}

// chose puts a choice that the store has kept into force.
func (h household) chose(ctx context.Context, err error) error {
	if err != nil {
		return notThere(err)
	}
	choices, err := h.d.store.Choices(ctx)
	if err != nil {
		return err
	}
	h.d.registry.Choose(choices)
	h.d.changed()
	return nil
}

func notThere(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return err
}

func (h household) Rules(ctx context.Context) ([]policy.Rule, error) { return h.d.store.Rules(ctx) }

func (h household) AddRule(ctx context.Context, r policy.Rule) (policy.Rule, error) {
	r, err := h.d.store.AddRule(ctx, r)
	if err != nil {
		return r, err
	}
	return r, h.d.recompile(ctx)
}

func (h household) RemoveRule(ctx context.Context, id int64) error {
	if err := h.d.store.RemoveRule(ctx, id, ui.By(ctx)); err != nil {
		return notThere(err)
	}
	return h.d.recompile(ctx)
}

func (h household) Erase(ctx context.Context, id devices.ID) (int64, error) {
	h.d.recorder.Forget(id)
	if h.d.carrier != nil {
		h.d.carrier.Forget(id)
	}
	return eraseIn(ctx, h.d.store, id)
}

// eraseIn erases what was written of a device; "" is of all.
func eraseIn(ctx context.Context, s *store.Store, id devices.ID) (int64, error) {
	if id == "" {
		return s.EraseAll(ctx)
	}
	return s.Erase(ctx, id)
}

// Forget removes a device and every trace of it. When it is seen again it is new.
func (h household) Forget(ctx context.Context, id devices.ID) (int64, error) {
	h.d.registry.Forget(id) // first: what the registry knows is written down again
	h.d.recorder.Forget(id)
	rows, err := forgetIn(ctx, h.d.store, id, ui.By(ctx))
	return rows, errors.Join(err, h.chose(ctx, nil), h.d.recompile(ctx))
}

// forgetIn removes what was chosen for a device, that it was here, and what was
// written of it; last its lines in the audit log, which all that adds to.
func forgetIn(ctx context.Context, s *store.Store, id devices.ID, by string) (rows int64, err error) {
	rules, err := s.Rules(ctx)
	if err != nil {
		return 0, err
	}
	for _, r := range rules {
		if r.Device == id {
			if err := s.RemoveRule(ctx, r.ID, by); err != nil && !errors.Is(err, store.ErrNotFound) {
				return 0, err
			}
		}
	}
	if err := errors.Join(s.Unchoose(ctx, id, by), s.Unlist(ctx, id), s.RemoveKnown(ctx, id)); err != nil {
		return 0, err
	}
	return s.Erase(ctx, id)
}

func (h household) On() bool { return h.d.on.Load() }

func (h household) Dismiss(ctx context.Context, what string) error {
	all := h.d.dismissed(ctx)
	if slices.Contains(all, what) {
		return nil
	}
	// The oldest make room: what was dismissed so long ago may be said once more.
	all = append(all, what)
	return h.d.store.SetSetting(ctx, keyDismissed, strings.Join(all[max(0, len(all)-maxDismissed):], " "), ui.By(ctx))
}

func (h household) Switch(ctx context.Context, on bool) error {
	if err := h.d.store.Switch(ctx, on, ui.By(ctx)); err != nil {
		return err
	}
	h.d.on.Store(on)
	if err := h.d.recompile(ctx); err != nil {
		return err
	}
	// Now, not at the next wake: whoever switched off wants to know that it is.
	return h.d.apply(ctx)
}
