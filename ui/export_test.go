package ui

// Routes are the method and pattern of everything that is served.
func (s *Server) Routes() [][2]string {
	var all [][2]string
	for _, r := range append(s.apiRoutes(), s.pageRoutes()...) {
		all = append(all, [2]string{r.method, r.pattern})
	}
	return all
}

// Packed is how many bytes of assets travel, compressed.
func (s *Server) Packed() (total int) {
	for _, a := range s.assets {
		total += len(a.packed)
	}
	return total
}

var (
	Show       = show
	HumanBytes = humanBytes
	Grouped    = grouped
	ParseSpan  = parseSpan
	Visible    = visible
)

const MaxShown = maxShown
