// Package uci reads OpenWrt's configuration syntax: sections, options, lists.
package uci
