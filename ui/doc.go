// Package ui shows the house to its people: pages, JSON API, live feed.
//
// It reads the ledger and the house through the small interfaces in this
// package and holds no state of its own but the open live feeds.
package ui
