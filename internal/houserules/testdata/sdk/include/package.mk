PKG_BUILD_DIR ?= /build/$(PKG_NAME)-$(PKG_VERSION)

define BuildPackage
compile:
	$$(Build/Compile)
install:
	$$(call Package/$(1)/install,$$(ROOT))
export NC_PRERM := $$(Package/$(1)/prerm)
prerm:
	@printenv NC_PRERM
endef
