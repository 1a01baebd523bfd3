package dissect

// Plus is what two messages of one flow exposed together. Neither is changed; where
// both show a user, the first stays.
func (x *Exposure) Plus(more *Exposure) *Exposure {
	switch {
	case more == nil:
		return x
	case x == nil:
		return more
	}
	sum := &Exposure{User: x.User, Default: x.Default || more.Default}
	if sum.User == "" {
		sum.User = more.User
	}
	for _, kind := range idNames {
		if n := x.count(kind) + more.count(kind); n > 0 {
			sum.Identifiers = append(sum.Identifiers, Identifier{kind, min(n, 255)})
		}
	}
	return sum
}

func (x *Exposure) count(kind string) int {
	for _, id := range x.Identifiers {
		if id.Kind == kind {
			return id.Count
		}
	}
	return 0
}
