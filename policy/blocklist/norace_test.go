//go:build !race

package blocklist

const underRace = false
