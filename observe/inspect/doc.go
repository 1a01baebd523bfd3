// Package inspect reads capture files through an Observer and yields one row per
// flow.
package inspect
