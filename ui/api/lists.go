package api

import "time"

// List is one blocklist or allowlist and how it fares.
type List struct {
	Name      string     `json:"name"`
	Owner     string     `json:"owner"`    // "netcurtain": our starter list, "administrator": of the settings file, "household"
	Source    string     `json:"source"`   // "built-in", "url", "file", "catalogue"
	Address   string     `json:"address"`  // URL, file name or name in the catalogue
	Kind      string     `json:"kind"`     // "block" or "allow"
	Enabled   bool       `json:"enabled"`  // false: it is kept, not asked for, and nobody uses it
	Devices   []string   `json:"devices"`  // IDs of those that it is for; empty is the whole house
	Insecure  bool       `json:"insecure"` // it may come over http, and may be changed on the way
	Rewrite   bool       `json:"rewrite"`  // its rules may answer with other addresses
	Licence   string     `json:"licence"`  // of lists of the catalogue
	Shadowed  bool       `json:"shadowed"` // the settings file has a list of this name, and that one counts
	Rules     int        `json:"rules"`
	Unique    int        `json:"unique"` // names and rules that no other list has
	Rejected  int        `json:"rejected"`
	Hits      int64      `json:"hits"` // look-ups that it decided
	LastHit   *time.Time `json:"last_hit"`
	Pending   bool       `json:"pending"`      // not had yet
	Success   *time.Time `json:"last_success"` // when it was last had or found unchanged
	Failing   *time.Time `json:"failing_since"`
	LastError string     `json:"last_error"` // why the last try failed; the old rules stay
	Next      *time.Time `json:"next"`       // when it is asked for again
	Using     string     `json:"using"`      // the smaller list that stands in for it
	Unfit     string     `json:"unfit"`      // why it is off or another stands in, in words
	Doing     string     `json:"doing"`      // "waiting", "downloading", "reading", "compiling" or ""
	Bytes     int64      `json:"bytes"`      // had so far of what is downloaded
	Of        int64      `json:"of"`         // announced; 0 is not known
}

// Lists is the answer to GET /api/v1/lists.
type Lists struct {
	Lists  []List `json:"lists"`
	Most   int    `json:"most"`   // how many there can be
	Folder string `json:"folder"` // below which list files lie
}

// Overlap is what two lists have in common.
type Overlap struct {
	List   string `json:"list"`
	Shared int    `json:"shared"` // names and rules that both have
}

// ListDetail is the answer to GET /api/v1/lists/{name}.
type ListDetail struct {
	List
	Overlap []Overlap `json:"overlap"` // most first
	Rejects []string  `json:"rejects"` // "list:line: text: reason", the first hundred
}

// PublicList is one of the catalogue.
type PublicList struct {
	Name     string `json:"name"`
	URL      string `json:"url"`
	Licence  string `json:"licence"`
	Homepage string `json:"homepage"`
	Size     string `json:"size"`    // "S", "M", "L", "XL"
	Rules    int    `json:"rules"`   // about how many
	Smaller  string `json:"smaller"` // what stands in where there is no room
	Smart    bool   `json:"smart"`   // suits a house of smart devices
	For      string `json:"for"`
	Added    bool   `json:"added"`
}

// Catalogue is the answer to GET /api/v1/catalogue.
type Catalogue struct {
	Lists []PublicList `json:"lists"`
}

// ListTrial is the answer to POST /api/v1/lists/test.
type ListTrial struct {
	Rules    int       `json:"rules"`
	Lines    int       `json:"lines"`
	Bytes    int64     `json:"bytes"`
	Rejected int       `json:"rejected"`
	Rejects  []string  `json:"rejects"`
	Asked    int       `json:"asked"`  // names that devices asked for lately and that were compared
	Blocks   []Covered `json:"blocks"` // those of them that the list covers and that are not blocked now
}

// Covered is a name with the rule that covers it.
type Covered struct {
	Name string `json:"name"`
	Rule string `json:"rule"`
}

// RemovedList is the answer to DELETE /api/v1/lists/{name}.
type RemovedList struct {
	OK   bool   `json:"ok"`
	Undo string `json:"undo"` // the command that adds it again
}

// Egress is what this box itself asked of one host.
type Egress struct {
	What     string    `json:"what"` // "list ads"
	Host     string    `json:"host"`
	Requests int64     `json:"requests"`
	Bytes    int64     `json:"bytes"` // that came back
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
}

// EgressList is the answer to GET /api/v1/egress.
type EgressList struct {
	Egress []Egress `json:"egress"`
}

// Why is the answer to GET /api/v1/why: every rule that covers a name, in the order
// in which they are asked.
type Why struct {
	Name    string   `json:"name"`
	Device  string   `json:"device"` // "" is a device that nobody knows
	Type    string   `json:"type"`
	Verdict string   `json:"verdict"`
	Noted   bool     `json:"noted"`
	Reason  string   `json:"reason"`
	Rule    string   `json:"rule"`
	List    string   `json:"list"`
	Steps   []Step   `json:"steps"`
	Changes []Change `json:"changes"`
}

// Step is one rule and what becomes of it.
type Step struct {
	State  string `json:"state"` // "decides", "beaten", "ended", "others", "unused", "cancelled", "unobeyed", "path", "not-asked"
	Means  string `json:"means"` // the same in words
	Action string `json:"action"`
	Reason string `json:"reason"`
	Rule   string `json:"rule"`
	List   string `json:"list"`
	Device string `json:"device"` // whom a household's rule is for
}

// Change is what would change a verdict.
type Change struct {
	Means   string `json:"means"`
	Command string `json:"command"`
}

// Bodies of changes to lists.
type (
	// NewList is the body of POST /api/v1/lists and, without name, of …/test: exactly
	// one of url, file and catalogue.
	NewList struct {
		Name      string   `json:"name,omitempty"` // of the catalogue's list when empty
		URL       string   `json:"url,omitempty"`
		File      string   `json:"file,omitempty"`
		Catalogue string   `json:"catalogue,omitempty"`
		Kind      string   `json:"kind,omitempty"` // "block" when empty
		Insecure  bool     `json:"insecure,omitempty"`
		Rewrite   bool     `json:"rewrite,omitempty"`
		Devices   []string `json:"devices,omitempty"` // IDs, addresses or names
	}
	// SetList is the body of POST /api/v1/lists/{name}; what is left out stays.
	SetList struct {
		Enabled *bool     `json:"enabled,omitempty"`
		Devices *[]string `json:"devices,omitempty"`
	}
	// UpdateLists is the body of POST /api/v1/lists/update; no names is all.
	UpdateLists struct {
		Names []string `json:"names,omitempty"`
	}
)
