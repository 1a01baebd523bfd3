// Package api holds the shapes of the JSON API, which pages, command line and
// control socket share.
//
// Field names are stable: fields are added, never renamed or removed.
// docs/api.md tells the same story for people.
package api
