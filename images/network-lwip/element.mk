# The network element: overlay and implementation, two libraries (stack.h is the seam).
NET := network-lwip
LWIP := $(call source,lwip)

NET_CORE := $(CORE_OBJECTS)
NET_OVERLAY_OBJECTS := $(patsubst $(IMAGES)/%.c,$(OBJ)/%.o,$(sort $(wildcard $(IMAGES)/$(NET)/overlay/*.c)))
NET_STACK_OBJECTS := $(patsubst $(IMAGES)/%.c,$(OBJ)/%.o,\
  $(filter-out %/section_begin.c %/section_end.c,$(sort $(wildcard $(IMAGES)/$(NET)/lwip/*.c))))

# lwIP without its API, applications, allocator, timers and self-tests.
LWIP_FILES := core/def core/inet_chksum core/ip core/memp core/netif core/pbuf core/stats core/tcp core/tcp_in \
  core/tcp_out core/udp core/ipv4/etharp core/ipv4/icmp core/ipv4/igmp core/ipv4/ip4 core/ipv4/ip4_addr \
  core/ipv4/ip4_frag core/ipv6/ethip6 core/ipv6/icmp6 core/ipv6/inet6 core/ipv6/ip6 \
  core/ipv6/ip6_addr core/ipv6/ip6_frag core/ipv6/mld6 core/ipv6/nd6 netif/ethernet
LWIP_OBJECTS := $(patsubst %,$(OBJ)/$(NET)/liblwip/%.o,$(LWIP_FILES))
LWIP_SHARED := $(addprefix $(OBJ)/$(NET)/lwip/section_,begin.o end.o)

CFLAGS_network-lwip := -I$(IMAGES)/$(NET) -I$(IMAGES)/$(NET)/lwip/config -I$(LWIP)/src/include -pthread

# Only lwIP's variables go to the shared sections; the run-time sizes of lwipopts.h with them.
$(LWIP_OBJECTS): $(OBJ)/$(NET)/liblwip/%.o: $(LWIP)/.fetched
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(CFLAGS_network-lwip) -w -include $(IMAGES)/$(NET)/lwip/section.h -c $(LWIP)/src/$*.c -o $@
$(NET_STACK_OBJECTS) $(LWIP_SHARED): $(LWIP)/.fetched

NET_LIBS := $(call libdir,$(NET))
$(NET_LIBS)/libcse-net.so: $(NET_OVERLAY_OBJECTS) $(NET_CORE)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -Wl,-z,defs -Wl,-soname,libcse-net.so -o $@ $^ -ldl -pthread

# First and last object bracket the shared sections.
$(NET_LIBS)/libcse-lwip.so: $(OBJ)/$(NET)/lwip/section_begin.o $(LWIP_OBJECTS) $(NET_STACK_OBJECTS) \
                            $(OBJ)/$(NET)/lwip/section_end.o
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -fuse-ld=lld -Wl,-z,defs -Wl,-soname,libcse-lwip.so -o $@ $^ -pthread

# Fuzz targets that run the stack: frames of the device, messages of the broker, settings files.
NET_FUZZ_STACK := $(patsubst %,$(BUILD)/fuzz/network-%,frames broker settings)
$(NET_FUZZ_STACK): $(BUILD)/fuzz/network-%: $(OBJ)/$(NET)/lwip/section_begin.o $(LWIP_OBJECTS) $(NET_STACK_OBJECTS) \
                    $(OBJ)/$(NET)/fuzz/host.o $(OBJ)/$(NET)/fuzz/%.o $(OBJ)/$(NET)/lwip/section_end.o
	@mkdir -p $(@D)
	$(FUZZ_LINK) -Wl,--wrap=syscall,--wrap=clock_gettime $^ -pthread
$(BUILD)/fuzz/network-broker: $(OBJ)/_core/broker.o $(OBJ)/_core/settings.o $(OBJ)/_core/bind.o $(OBJ)/_core/log.o
$(patsubst %,$(OBJ)/$(NET)/fuzz/%.o,host frames broker settings): $(LWIP)/.fetched
NET_FUZZ_RINGS := $(BUILD)/fuzz/network-rings
$(NET_FUZZ_RINGS): $(OBJ)/$(NET)/lwip/ring.o $(OBJ)/$(NET)/fuzz/rings.o
	@mkdir -p $(@D)
	$(FUZZ_LINK) $^
FUZZERS += $(NET_FUZZ_STACK) $(NET_FUZZ_RINGS)

LIBRARIES += $(NET_LIBS)/libcse-net.so $(NET_LIBS)/libcse-lwip.so

include $(IMAGES)/$(NET)/dns/dns.mk
