package ui

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

//go:embed assets templates
var files embed.FS

// asset is one file that pages refer to, packed once. Its address carries its
// hash, so that browsers keep it for ever and never keep an old one.
type asset struct {
	kind          string
	plain, packed []byte
	path          string
}

// assets by the path they are served under.
type assets map[string]asset

func loadAssets() (assets, error) {
	all := assets{}
	err := fs.WalkDir(files, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		plain, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		var packed bytes.Buffer
		z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		if err != nil {
			return err
		}
		if _, err = z.Write(plain); err == nil {
			err = z.Close()
		}
		sum := sha256.Sum256(plain)
		a := asset{
			kind: kindOf(name), plain: plain, packed: packed.Bytes(),
			path: "/assets/" + hex.EncodeToString(sum[:6]) + "/" + path.Base(name),
		}
		all[a.path] = a
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ui: pack assets: %w", err)
	}
	return all, nil
}

// kindOf does not ask the system's MIME tables for what must never be wrong.
func kindOf(name string) string {
	switch path.Ext(name) {
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".LICENSE":
		return "text/plain; charset=utf-8"
	}
	return mime.TypeByExtension(path.Ext(name))
}

// url is where the asset with this file name is served.
func (a assets) url(base string) (string, error) {
	for p := range a {
		if path.Base(p) == base {
			return p, nil
		}
	}
	return "", fmt.Errorf("there is no asset %q", base)
}

func (s *Server) serveAsset(w http.ResponseWriter, r *http.Request) {
	a, ok := s.assets[r.URL.Path]
	if !ok {
		s.fail(w, r, &failure{http.StatusNotFound, "there is no such page"})
		return
	}
	h := w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Vary", "Accept-Encoding")
	body := a.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = a.packed
	}
	_, _ = w.Write(body) // the reader has gone: nobody to tell
}
