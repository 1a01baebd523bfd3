package main

import "testing"

func TestShorten(t *testing.T) {
	for in, want := range map[string]string{
		"Samsung Electronics Co.,Ltd": "Samsung Electronics",
		"HUAWEI TECHNOLOGIES CO.,LTD": "Huawei Technologies",
		"Roku, Inc.":                  "Roku",
		"IBM Corp":                    "IBM",
		"TCL King Electrical Appliances(Huizhou)Co.,Ltd": "TCL King Electrical",
		"Bang & Olufsen A/S":                             "Bang & Olufsen",
		"tado GmbH":                                      "tado",
		"Private":                                        "",
		"Hangzhou Hikvision Digital Technology Co.,Ltd.":   "Hangzhou Hikvision Digital",
		"Evil <b>\"Co\"</b>\x00 Ltd":                       "Evil bCo/b",
		"Donaudampfschifffahrtselektrizitätengesellschaft": "Donaudampfschifffahrtselek",
		"": "",
	} {
		if got := shorten(in); got != want || len(got) > maxName {
			t.Errorf("shorten(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestUnifySpelling(t *testing.T) {
	all := []assignment{{name: "Brother industries"}, {name: "Brother Industries"}, {name: "Brother Industries"}}
	unify(all)
	if all[0].name != "Brother Industries" {
		t.Errorf("the rarer spelling stays: %v", all)
	}
}
