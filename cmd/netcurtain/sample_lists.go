package main

// A capture's house has no lists: nothing asks and nothing is blocked.

import (
	"context"
	"io/fs"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/ui/api"
)

func (p *sampleHouse) Lists(context.Context) (api.Lists, error) {
	return api.Lists{Lists: []api.List{}}, nil
}
func (p *sampleHouse) List(context.Context, string) (api.ListDetail, error) {
	return api.ListDetail{}, fs.ErrNotExist
}
func (p *sampleHouse) Catalogue(context.Context) ([]api.PublicList, error) { return nil, nil }
func (p *sampleHouse) AddList(context.Context, api.NewList, []devices.ID) (api.List, error) {
	return api.List{}, errOnlyCapture
}
func (p *sampleHouse) RemoveList(context.Context, string) (string, error) { return "", errOnlyCapture }
func (p *sampleHouse) SetList(context.Context, string, *bool, *[]devices.ID) error {
	return errOnlyCapture
}
func (p *sampleHouse) UpdateLists(context.Context, []string) error { return errOnlyCapture }
func (p *sampleHouse) TestList(context.Context, api.NewList) (api.ListTrial, error) {
	return api.ListTrial{}, errOnlyCapture
}
func (p *sampleHouse) Explain(policy.Query) []policy.Step           { return nil }
func (p *sampleHouse) Egress(context.Context) ([]api.Egress, error) { return nil, nil }
