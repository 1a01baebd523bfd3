# Of OpenWrt's SDK, what a package of ours uses: enough to see what is asked for.
INSTALL_DIR := install -d -m0755
INSTALL_BIN := install -m0755
INSTALL_DATA := install -m0644
INSTALL_CONF := install -m0600
TARGET_CFLAGS := -O2 -pipe
TARGET_LDFLAGS := -znow
INCLUDE_DIR := $(TOPDIR)/include
