# libcse-dns.so: c-ares and our way of waiting for it, loaded by the overlay at the first DNS name.
# Included by ../element.mk.
ARES := $(call source,c-ares)
CFLAGS_ARES := -I$(IMAGES)/$(NET)/dns -I$(ARES)/include -I$(ARES)/src/lib -I$(ARES)/src/lib/include \
  -DHAVE_CONFIG_H -DCARES_STATICLIB

# One archive by one rule: the list of c-ares' files is known only once it is fetched.
$(OBJ)/$(NET)/libcares.a: $(ARES)/.fetched $(IMAGES)/$(NET)/dns/ares_config.h
	@mkdir -p $(OBJ)/$(NET)/libcares && rm -f $@
	cd $(OBJ)/$(NET)/libcares && $(CC) $(CFLAGS) -w $(CFLAGS_ARES) -c \
	  $$(find $(ARES)/src/lib -name '*.c' ! -name 'windows_port.c' ! -name '*_win*.c' | sort)
	$(AR) rcs $@ $(OBJ)/$(NET)/libcares/*.o

$(OBJ)/$(NET)/dns/dns.o: $(ARES)/.fetched
$(OBJ)/$(NET)/dns/dns.o $(BUILD)/tidy/$(NET)/dns/dns.ok: CFLAGS_network-lwip += $(CFLAGS_ARES)

$(call libdir,$(NET))/libcse-dns.so: $(OBJ)/$(NET)/dns/dns.o $(OBJ)/$(NET)/libcares.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -Wl,-soname,libcse-dns.so -o $@ $^ -pthread

LIBRARIES += $(call libdir,$(NET))/libcse-dns.so
