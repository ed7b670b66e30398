# Not an element: the supervisor process of the namespace runtime, one static program per machine.
SHIM := $(BUILD)/bin/$(MACHINE)/cse-shim
SHIM_SOURCES := $(wildcard $(IMAGES)/_shim/*.c)

$(SHIM): $(SHIM_SOURCES) $(wildcard $(IMAGES)/_shim/*.h)
	@mkdir -p $(@D)
	$(PYTHON) -m ziglang cc -target $(MACHINE)-linux-musl -static -s -Os -std=gnu11 -Wall -Wextra \
	  -fstack-protector-strong $(SHIM_SOURCES) -o $@.new && mv $@.new $@

LIBRARIES += $(SHIM)
