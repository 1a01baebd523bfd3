package ui_test

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/ui/api"
)

// TestDocsTellEverything: docs/api.md names every route and every field.
func TestDocsTellEverything(t *testing.T) {
	b, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	for _, r := range newServer(t, family()).Routes() {
		if strings.HasPrefix(r[1], "/api/") && !strings.Contains(doc, r[0]+" "+r[1]) {
			t.Errorf("docs/api.md does not tell of %s %s", r[0], r[1])
		}
	}
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for typ.Kind() == reflect.Slice || typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Map {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || typ.PkgPath() != reflect.TypeFor[api.Status]().PkgPath() || seen[typ] {
			return
		}
		seen[typ] = true
		for i := range typ.NumField() {
			f := typ.Field(i)
			if f.Anonymous { // its fields are ours
				walk(f.Type)
				continue
			}
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" || name != strings.ToLower(name) {
				t.Errorf("%s.%s has the JSON name %q", typ.Name(), f.Name, name)
			}
			if !strings.Contains(doc, "`"+name+"`") && !strings.Contains(doc, `"`+name+`":`) {
				t.Errorf("docs/api.md does not tell of %s.%s", typ.Name(), name)
			}
			walk(f.Type)
		}
	}
	for _, v := range []any{
		api.Error{}, api.Done{}, api.Status{}, api.Devices{}, api.DeviceDetail{}, api.Days{}, api.Top{}, api.Flows{}, api.Lookups{}, api.Events{}, api.Rules{}, api.Live{},
		api.NewRule{}, api.SetMode{}, api.SetLog{}, api.SetKind{}, api.SetName{}, api.Erase{}, api.Erased{}, api.Switch{}, api.Dismiss{},
		api.Lists{}, api.ListDetail{}, api.Catalogue{}, api.ListTrial{}, api.RemovedList{}, api.EgressList{}, api.Why{}, api.NewList{}, api.SetList{}, api.UpdateLists{},
	} {
		walk(reflect.TypeOf(v))
	}
}
