# Arguments after the package's own are those of GoPackage/Build/Compile.
define GoPackage/Build/Compile
	CGO_CFLAGS="$(TARGET_CFLAGS)" CGO_LDFLAGS="$(TARGET_LDFLAGS)" \
	go install -trimpath $(if $(GO_PKG_DEFAULT_GCFLAGS),-gcflags "all=$(GO_PKG_DEFAULT_GCFLAGS)") -tags "$(GO_PKG_TAGS)" $(1) $(GO_PKG_BUILD_PKG)
endef

define GoPackage/Package/Install/Bin
	$(INSTALL_DIR) $(1)/usr/bin
endef

define GoBinPackage
endef
