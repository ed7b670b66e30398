# Not an element: holds a container's program until it has its network; one static program per machine.
HOLD := $(BUILD)/bin/$(MACHINE)/cse-hold

$(HOLD): $(IMAGES)/_hold/hold.c
	@mkdir -p $(@D)
	$(PYTHON) -m ziglang cc -target $(MACHINE)-linux-musl -static -s -Os -std=gnu11 -Wall -Wextra $< -o $@.new && mv $@.new $@

LIBRARIES += $(HOLD)
