# The clock element: libfaketime, unchanged, from Debian's source package. One library, built as
# its own Makefile does (multi-threaded variant). glibc only: it binds symbol versions (dlvsym).

CLOCK        := $(call libdir,clock-faketime)
CLOCK_SOURCE := $(call source,faketime)/src

ifeq ($(LIBC),glibc)
# Not for sanitizers: it is somebody else's, and it must load into whatever the element serves.
$(CLOCK)/libfaketime.so.1: $(BUILD)/sources/faketime/.fetched
	@mkdir -p $(@D)
	$(PYTHON) -m ziglang cc -target $(ZIG_$(LIBC)) -O2 -g -std=gnu99 -w -fPIC -shared \
	  -DFAKE_PTHREAD -DFAKE_STAT -DFAKE_UTIME -DFAKE_SLEEP -DFAKE_TIMERS -DFAKE_INTERNAL_CALLS \
	  -DPTHREAD_SINGLETHREADED_TIME -DPREFIX='"/usr"' -DLIBDIRNAME='"/lib"' \
	  -Wl,-soname,$(@F) -Wl,--version-script=$(CLOCK_SOURCE)/libfaketime.map \
	  $(CLOCK_SOURCE)/libfaketime.c -o $@ -ldl -lm -lrt -lpthread

LIBRARIES += $(CLOCK)/libfaketime.so.1
endif
