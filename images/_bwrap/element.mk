# Not an element: bubblewrap, which makes the namespace runtime's sandboxes. Static, so that nothing has
# to be found and linked at each start, and with what sets the flags of mounts at once.
BWRAP := $(BUILD)/bin/$(MACHINE)/bwrap
BWRAP_SOURCE := $(call source,bubblewrap)

$(BWRAP): $(BWRAP_SOURCE)/.fetched $(IMAGES)/_bwrap/config.h $(IMAGES)/_bwrap/sys/capability.h
	@mkdir -p $(@D)
	$(PYTHON) -m ziglang cc -target $(MACHINE)-linux-musl -static -s -Os -std=gnu11 -D_GNU_SOURCE \
	  -fstack-protector-strong \
	  -DPACKAGE_STRING="\"bubblewrap $$(sed -n "s/^  version : '\([0-9.]*\)',/\1/p" $(BWRAP_SOURCE)/meson.build)\"" \
	  -I$(IMAGES)/_bwrap -I$(BWRAP_SOURCE) $(BWRAP_SOURCE)/*.c -o $@.new && mv $@.new $@

LIBRARIES += $(BWRAP)
