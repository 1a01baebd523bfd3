// Package observe joins packets, connections, names, devices, atlas and policy
// into flows, and hands each to the journal: when it is known what it is, while it runs, when it ends.
package observe
