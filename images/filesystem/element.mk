# The file-system element: the overlay libcse-fs.so and, opened by it when an archive is first
# used, libcse-archive.so with libarchive's readers and the decompressors linked in.
# Third-party code is compiled without sanitizers, once per target, readers only.

FS      := $(call libdir,filesystem)
FS_TPO  := $(BUILD)/native/$(TARGET)/third-party
FS_ZCC   = $(say) $(PYTHON) -m ziglang cc -target $(ZIG_$(LIBC))
FS_3RD   = $(FS_ZCC) -O2 -g -std=gnu11 -fPIC -fvisibility=hidden -w -MMD -MP
FS_HERE := $(IMAGES)/filesystem

CFLAGS_filesystem := -D_GNU_SOURCE -I$(IMAGES)/filesystem -I$(call source,libarchive)/libarchive -I$(call source,zlib) \
  -I$(call source,libzstd)/lib -I$(call source,lz4)/lib -I$(call source,xz-utils)/src/liblzma/api

# $(1) source package, $(2) paths below it without .c, $(3) flags
define fs_third_party
FS_OBJECTS_$(1) := $(addprefix $(FS_TPO)/$(1)/,$(addsuffix .o,$(2)))
$(addprefix $(FS_TPO)/$(1)/,$(addsuffix .o,$(2))): $(FS_TPO)/$(1)/%.o: $(BUILD)/sources/$(1)/.fetched $(wildcard $(FS_HERE)/third-party/*.h)
	@mkdir -p $$(@D)
	$$(FS_3RD) $(3) -c $$(call source,$(1))/$$*.c -o $$@
endef

FS_ZLIB := adler32 crc32 inffast inflate inftrees uncompr zutil
FS_BZ2  := bzlib crctable decompress huffman randtable compress blocksort
FS_ZSTD := $(addprefix lib/common/,debug entropy_common error_private fse_decompress xxhash zstd_common) \
           $(addprefix lib/decompress/,huf_decompress zstd_ddict zstd_decompress zstd_decompress_block)
FS_LZMA := $(addprefix src/liblzma/,\
             $(addprefix common/,common block_util easy_preset filter_common index \
               stream_flags_common vli_size alone_decoder auto_decoder block_buffer_decoder block_decoder \
               block_header_decoder easy_decoder_memusage filter_buffer_decoder filter_decoder \
               filter_flags_decoder index_decoder index_hash stream_decoder stream_flags_decoder \
               vli_decoder lzip_decoder) \
             check/check check/crc32_fast check/crc64_fast check/sha256 lz/lz_decoder \
             common/stream_buffer_decoder lzma/lzma_decoder lzma/lzma2_decoder lzma/lzma_encoder_presets delta/delta_common delta/delta_decoder \
             $(addprefix simple/,simple_coder simple_decoder x86 powerpc ia64 arm armthumb arm64 sparc riscv))
FS_ARCHIVE := $(addprefix libarchive/archive_,acl check_magic entry entry_sparse entry_stat entry_strmode \
             entry_xattr options pack_dev ppmd7 random rb read read_add_passphrase read_open_filename read_open_fd \
             read_set_options read_support_filter_none \
             read_support_filter_bzip2 read_support_filter_compress read_support_filter_gzip \
             read_support_filter_lz4 read_support_filter_xz read_support_filter_zstd \
             read_support_format_7zip read_support_format_cpio read_support_format_iso9660 \
             read_support_format_tar string string_sprintf util \
             version_details virtual)
FS_ARCHIVE += libarchive/xxhash
FS_LZ4  := lib/lz4
FS_LZMA_INC := $(addprefix -I$(call source,xz-utils)/src/,common liblzma/api liblzma/common liblzma/check liblzma/lz \
             liblzma/rangecoder liblzma/lzma liblzma/delta liblzma/simple)

$(eval $(call fs_third_party,zlib,$(FS_ZLIB),-DHAVE_UNISTD_H -DHAVE_STDARG_H))
$(eval $(call fs_third_party,bzip2,$(FS_BZ2),-DBZ_NO_STDIO))
$(eval $(call fs_third_party,lz4,$(FS_LZ4),))
$(eval $(call fs_third_party,libzstd,$(FS_ZSTD),-DZSTD_DISABLE_ASM -DZSTDLIB_VISIBILITY= -I$(call source,libzstd)/lib))
$(eval $(call fs_third_party,xz-utils,$(FS_LZMA),-DLZMA_API_STATIC -include $(FS_HERE)/third-party/lzma-config.h $(FS_LZMA_INC)))
$(eval $(call fs_third_party,libarchive,$(FS_ARCHIVE),-D__LIBARCHIVE_BUILD -DLIBARCHIVE_STATIC -DPLATFORM_CONFIG_H='"$(FS_HERE)/third-party/archive-config.h"' \
  -I$(call source,zlib) -I$(call source,bzip2) -I$(call source,xz-utils)/src/liblzma/api -I$(call source,libzstd)/lib -I$(call source,lz4)/lib))

FS_THIRD_PARTY = $(foreach package,zlib bzip2 libzstd lz4 xz-utils libarchive,$(FS_OBJECTS_$(package)))

fs-third-party: $(FS_THIRD_PARTY)
.PHONY: fs-third-party

# ---- the libraries --------------------------------------------------------------------------

FS_ARCHIVE_OBJECTS := $(patsubst $(IMAGES)/%.c,$(OBJ)/%.o,$(wildcard $(FS_HERE)/archive/*.c))
FS_OVERLAY_OBJECTS := $(patsubst $(IMAGES)/%.c,$(OBJ)/%.o,$(wildcard $(FS_HERE)/*.c))

$(FS_ARCHIVE_OBJECTS): $(foreach package,libarchive libzstd lz4 xz-utils zlib,$(BUILD)/sources/$(package)/.fetched)

$(FS)/libcse-archive.so: $(FS_ARCHIVE_OBJECTS) $(FS_THIRD_PARTY)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -Wl,-soname,$(@F) -Wl,--version-script=$(FS_HERE)/archive/exports.map -Wl,-z,defs -Wl,--gc-sections $^ -lm -o $@

$(FS)/libcse-fs.so: $(FS_OVERLAY_OBJECTS) $(CORE_OBJECTS)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -Wl,-soname,$(@F) $^ -ldl -lpthread -o $@

LIBRARIES += $(FS)/libcse-fs.so $(FS)/libcse-archive.so

# ---- encrypted stores: libcse-crypt.so, with the part of libsodium that it uses ---------------

FS_SODIUM_FROM := $(call source,libsodium)/src/libsodium
FS_SODIUM := $(addprefix src/libsodium/,\
               $(addprefix crypto_aead/aegis256/,aead_aegis256 aegis256_aesni aegis256_armcrypto aegis256_soft) \
               crypto_core/softaes/softaes crypto_aead/xchacha20poly1305/aead_xchacha20poly1305 \
               crypto_aead/chacha20poly1305/aead_chacha20poly1305 crypto_core/hchacha20/core_hchacha20 \
               $(addprefix crypto_generichash/blake2b/,generichash_blake2 ref/generichash_blake2b ref/blake2b-ref \
                 ref/blake2b-compress-ref ref/blake2b-compress-ssse3 ref/blake2b-compress-sse41 ref/blake2b-compress-avx2) \
               crypto_kdf/crypto_kdf crypto_kdf/blake2b/kdf_blake2b \
               $(addprefix crypto_onetimeauth/poly1305/,onetimeauth_poly1305 donna/poly1305_donna sse2/poly1305_sse2) \
               $(addprefix crypto_stream/,chacha20/stream_chacha20 chacha20/ref/chacha20_ref \
                 chacha20/dolbeau/chacha20_dolbeau-ssse3 chacha20/dolbeau/chacha20_dolbeau-avx2 xchacha20/stream_xchacha20) \
               crypto_verify/verify randombytes/randombytes randombytes/sysrandom/randombytes_sysrandom \
               $(addprefix sodium/,codecs runtime utils))
FS_SODIUM_aarch64 := -DHAVE_ARMCRYPTO -DHAVE_GETAUXVAL -DHAVE_SYS_AUXV_H
FS_SODIUM_x86_64 := -DHAVE_WMMINTRIN_H -DHAVE_EMMINTRIN_H -DHAVE_TMMINTRIN_H -DHAVE_SMMINTRIN_H -DHAVE_AVXINTRIN_H -DHAVE_AVX_ASM \
  -DHAVE_AVX2INTRIN_H -DHAVE_CPUID -DHAVE_TI_MODE

$(eval $(call fs_third_party,libsodium,$(FS_SODIUM),-DCONFIGURED=1 -DSODIUM_STATIC -DNATIVE_LITTLE_ENDIAN \
  -DHAVE_SYS_MMAN_H -DHAVE_MMAP -DHAVE_MLOCK -DHAVE_MPROTECT -DHAVE_PTHREAD -DHAVE_GCC_MEMORY_FENCES $(FS_SODIUM_$(MACHINE)) \
  -I$(FS_HERE)/third-party/sodium -I$(FS_SODIUM_FROM)/include -I$(FS_SODIUM_FROM)/include/sodium -I$(FS_SODIUM_FROM)/include/sodium/private))
$(FS_OBJECTS_libsodium): $(FS_HERE)/element.mk
# What each of these files is for; upstream says so in pragmas of gcc.
$(FS_TPO)/libsodium/%ssse3.o $(FS_TPO)/libsodium/%sse41.o $(FS_TPO)/libsodium/%sse2.o: FS_3RD += $(if $(filter x86_64,$(MACHINE)),-msse4.1)
$(FS_TPO)/libsodium/%avx2.o: FS_3RD += $(if $(filter x86_64,$(MACHINE)),-mavx2)

FS_CRYPT_OBJECTS := $(patsubst $(IMAGES)/%.c,$(OBJ)/%.o,$(wildcard $(FS_HERE)/crypt/*.c))
$(FS_CRYPT_OBJECTS): $(BUILD)/sources/libsodium/.fetched
CFLAGS_filesystem += -I$(FS_HERE)/third-party/sodium -I$(FS_SODIUM_FROM)/include -DSODIUM_STATIC

$(FS)/libcse-crypt.so: $(FS_CRYPT_OBJECTS) $(FS_OBJECTS_libsodium)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -Wl,-soname,$(@F) -Wl,--version-script=$(FS_HERE)/crypt/exports.map -Wl,-z,defs -Wl,--gc-sections $^ -o $@

LIBRARIES += $(FS)/libcse-crypt.so

# ---- cse-files, the program that shows an application's files -----------------------------------
# Dynamic beside the overlay, which it asks; static for applications without it. Without sanitizers,
# as any program is.

FS_FILES := $(wildcard $(FS_HERE)/files/*.c)
FS_FILES_FLAGS := -D_GNU_SOURCE -Os -std=gnu11 -Wall -Wextra -Wl,-s -fstack-protector-strong

$(FS)/cse-files: $(FS_FILES) $(FS_HERE)/files/files.h $(FS_HERE)/tools.h
	@mkdir -p $(@D)
	$(FS_ZCC) $(FS_FILES_FLAGS) $(FS_FILES) -ldl -o $@.new && mv $@.new $@

FS_STATIC := $(BUILD)/bin/$(MACHINE)/cse-files
$(FS_STATIC): $(FS_FILES) $(FS_HERE)/files/files.h $(FS_HERE)/tools.h
	@mkdir -p $(@D)
	$(say) $(PYTHON) -m ziglang cc -target $(MACHINE)-linux-musl -static $(FS_FILES_FLAGS) $(FS_FILES) -o $@.new && mv $@.new $@

LIBRARIES += $(FS)/cse-files $(FS_STATIC)
