package store

// Running reports whether somebody is the writer: in tests, that Run has begun.
func (s *Store) Running() bool { return len(s.writer) == 1 }
