package dissect

import "github.com/netcurtain/netcurtain/flow"

type quicTalk struct{}

func (c *Conversation) followQUIC(dir flow.Dir, b []byte) {}
func (q *quicTalk) result() Result                        { return Result{} }
