# The clock element: libfaketime, unchanged, from Debian's source package. One library, built as
# its own Makefile does (multi-threaded variant). glibc only: it binds symbol versions (dlvsym).

CLOCK        := $(call libdir,clock-faketime)
CLOCK_SOURCE := $(call source,faketime)/src
CLOCK_COPY   := $(BUILD)/native/$(TARGET)/third-party/faketime/libfaketime.c

# x86_64 glibc has two versions of some functions, and libfaketime defines both; on aarch64
# there is one, and the newer definition takes the plain name.
ifeq ($(MACHINE),x86_64)
CLOCK_NAMES := cat
CLOCK_LINK  := -Wl,--version-script=$(CLOCK_SOURCE)/libfaketime.map
else
CLOCK_NAMES := sed -E -e 's/^__asm__\("\.symver (\w+_23[23]), (\w+)@@.*/__asm__(".globl \2\\n.set \2, \1");/' -e '/^__asm__\("\.symver/d'
CLOCK_LINK  :=
endif

ifeq ($(LIBC),glibc)
$(CLOCK_COPY): $(BUILD)/sources/faketime/.fetched $(IMAGES)/clock-faketime/element.mk
	@mkdir -p $(@D)
	$(CLOCK_NAMES) $(CLOCK_SOURCE)/libfaketime.c > $@

# Not for sanitizers: it is somebody else's, and it must load into whatever the element serves.
$(CLOCK)/libfaketime.so.1: $(CLOCK_COPY)
	@mkdir -p $(@D)
	$(PYTHON) -m ziglang cc -target $(ZIG_$(LIBC)) -O2 -g -std=gnu99 -w -fPIC -shared \
	  -DFAKE_PTHREAD -DFAKE_STAT -DFAKE_UTIME -DFAKE_SLEEP -DFAKE_TIMERS -DFAKE_INTERNAL_CALLS \
	  -DPTHREAD_SINGLETHREADED_TIME -DPREFIX='"/usr"' -DLIBDIRNAME='"/lib"' -I$(CLOCK_SOURCE) \
	  -Wl,-soname,$(@F) $(CLOCK_LINK) $< -o $@ -ldl -lm -lrt -lpthread

LIBRARIES += $(CLOCK)/libfaketime.so.1
endif
