# How Netcurtain is compiled: read by the project's own Makefile and by the feed
# package beside this file, so that what is measured is what is installed.
# NC_SOURCE is the folder of the source.
NC_TAGS := netgo,osusergo,sqlite_omit_load_extension

# SQLite as OpenWrt compiles it: small, and without what nothing here uses.
NC_CFLAGS = -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables -include $(NC_SOURCE)/scripts/sqlite.h
NC_LDFLAGS := -Wl,--gc-sections

# Only what runs hot is inlined; the rest is smaller without: 1.5 MB of flash. The last pattern that matches counts.
NC := github.com/netcurtain/netcurtain
NC_HOT  := std github.com/miekg/dns github.com/coredns/coredns/... github.com/elazarl/... $(NC)/...
NC_COLD := $(addprefix $(NC)/,cmd/... ui/... enforce lists configs store internal/uci) net net/http/... mime/... html/... text/template/... \
	crypto/x509 crypto/tls regexp/syntax encoding/json encoding/gob database/sql
NC_GCFLAGS := -gcflags=all=-l $(NC_HOT:%=-gcflags=%=) $(NC_COLD:%=-gcflags=%=-l)
