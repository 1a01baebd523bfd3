package proxy

// len is how many sockets are waited for.
func (p *parking) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting)
}
