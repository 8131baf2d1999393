# Build rules. ./build.sh is the way in: it sees to dependencies and calls this with the right variables. By hand:
#
#   make -j2                                   build/splitinf
#   make MODE=debug -j2                        build-debug/splitinf, with AddressSanitizer and UBSan
#   make build/test/unit/test_kv               one module's unit tests, a program of its own
#   make unit replay loads fuzz objects        all unit tests in one runner; fuzz targets over their corpora; what
#                                              test/e2e needs of test/bench; with libFuzzer (MODE=fuzz CC=clang);
#                                              every object file and nothing linked
#
#   MODE=release|debug|tsan|static|fuzz        BUILD=DIR where everything goes
MODE ?= release
BUILD ?= $(if $(filter release,$(MODE)),build,build-$(MODE))

VERSION := 0.1.0
COMMIT  := $(shell git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null || echo unknown)
ARCH    := $(shell $(CC) -dumpmachine | cut -d- -f1)
VENDOR  := vendor/build$(if $(filter $(ARCH),$(shell uname -m)),,-$(ARCH))

CSTD   := -std=c11 -D_GNU_SOURCE
WARN   := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla
# No contraction by the compiler: fused multiply-adds stand where the code says so, for equal bits everywhere.
BASE   := $(CSTD) $(WARN) -I. -isystem $(VENDOR)/include -ffp-contract=off -fno-strict-aliasing -fPIE -g
HARDEN := -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fstack-protector-strong
SANE   := -O1 -fno-omit-frame-pointer
LINK   := -pie -Wl,-z,relro,-z,now,-z,noexecstack

ifeq ($(MODE),release)
OPT    := -O2 $(HARDEN)
else ifeq ($(MODE),static)
OPT    := -O2 $(HARDEN)
LINK   := -static$(LINK)
else ifeq ($(MODE),debug)
OPT    := $(SANE) -fsanitize=address,undefined -fno-sanitize-recover=undefined
else ifeq ($(MODE),tsan)
OPT    := $(SANE) -fsanitize=thread
else ifeq ($(MODE),fuzz)
# Needs clang. The libraries get the fuzzer's instrumentation, its main function comes with the targets only.
OPT    := $(SANE) -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
else
$(error MODE=$(MODE): there are release, debug, tsan, static and fuzz)
endif
CFLAGS = $(BASE) $(OPT) $(EXTRA_CFLAGS)
# Per file, behind the others: instruction sets beyond the base line (the one to use is chosen at run time), and what
# only one file needs to know.
# Kernel bodies are unrolled into very long functions, on which sanitizers would work for many minutes at full strength.
KERNEL := $(if $(filter release static,$(MODE)),-O3,-g1 -fno-sanitize=undefined -fno-sanitize-address-use-after-scope)
FLAGS_core/cpu/isa_portable.c := $(filter-out -O3,$(KERNEL))
FLAGS_core/cpu/isa_avx2.c     := -mavx2 -mfma -mf16c $(KERNEL)
FLAGS_core/cpu/isa_avx512.c   := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx2 -mfma -mf16c $(KERNEL)
FLAGS_core/cpu/isa_neon.c     := $(KERNEL)
FLAGS_cmd/version.c           := -DSPLITINF_VERSION='"$(VERSION)"' -DSPLITINF_COMMIT='"$(COMMIT)"'

# Sources: whatever stands in the folders, without the kernels of other processors. The kernels take longest to compile and
# come first.
CORE_C := $(if $(filter x86_64,$(ARCH)),$(wildcard core/cpu/isa_avx*.c)) \
          $(if $(filter aarch64,$(ARCH)),$(wildcard core/cpu/isa_neon*.c)) \
          $(filter-out core/cpu/isa_avx% core/cpu/isa_neon%,$(sort $(wildcard core/*/*.c)))
TOK_C  := $(wildcard tok/*.c tok/*/*.c)
NET_C  := $(wildcard net/*.c net/*/*.c)
GPU_C  := $(filter-out gpu/library$(if $(filter static,$(MODE)),,_none).c,$(wildcard gpu/*.c))
CMD_C  := $(wildcard cmd/*.c cmd/*/*.c)
UNIT_C := $(wildcard test/unit/*.c)
FUZZ_C := $(wildcard test/fuzz/fuzz_*.c)
ALL_C  := $(wildcard main.c) $(CMD_C) $(NET_C) $(GPU_C) $(CORE_C) $(TOK_C)

# Kernels for cards: one image (fatbin) for each .cu file, which gpu/kernels.c embeds: compiled to PTX of the oldest
# architecture, which is assembled for those up to 8.9, and again to that of 9.0, with which launches may overlap, for all from
# there on. Both go along, for cards that are not in the list. They depend on no C compiler and serve all release builds.
# NVCC=none, or no nvcc: a program without kernels. What the compiler tells of each kernel (registers, spills) is in NAME.log,
# for test/e2e/gpu_build.sh; its PTX in compute_*/NAME.ptx, for test/e2e/gpu_ptx.sh, which takes that of
# the emulated card's own kernels as well.
comma  := ,
IMAGES := build-gpu
CU     := $(wildcard gpu/*.cu)
ifeq ($(origin NVCC),undefined)
NVCC := $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc) \
                    $(lastword $(sort $(wildcard /usr/local/cuda-*/bin/nvcc))))
endif
ifneq ($(and $(filter release,$(MODE)),$(CU),$(filter-out none,$(NVCC))),)
GPU_ARCHS  ?= 80 86 89 90 100 120
NVCC_KNOWS := $(patsubst sm_%,%,$(shell $(NVCC) --list-gpu-code))
GPU_MAKES  := $(filter $(NVCC_KNOWS),$(GPU_ARCHS))
$(if $(GPU_MAKES),,$(error $(NVCC) compiles for none of GPU_ARCHS="$(GPU_ARCHS)"; it knows: $(NVCC_KNOWS)))
GPU_LACKS  := $(filter-out $(NVCC_KNOWS),$(GPU_ARCHS))
GPU_OLD    := $(filter 8%,$(GPU_MAKES))
GPU_NEW    := $(filter-out 8%,$(GPU_MAKES))
GPU_PTX    := $(strip $(if $(GPU_OLD),compute_80) $(if $(GPU_NEW),compute_90))
gpu_code    = -gencode "arch=compute_$(1),code=[$(subst $() ,$(comma),$(2:%=sm_%)),compute_$(1)]"
NVCC_VERSION := $(shell $(NVCC) --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
FATBINS    := $(CU:gpu/%.cu=$(IMAGES)/%.fatbin)
TEST_PTX   := $(GPU_PTX:%=$(IMAGES)/%/test_kernels.ptx)
NVCC_FLAGS := -std=c++17 -O3 --fmad=false -I. -Werror all-warnings -Xptxas -v --threads 0 \
              $(if $(findstring --compress-mode,$(shell $(NVCC) --help)),--compress-mode=size) \
              $(if $(GPU_OLD),$(call gpu_code,80,$(GPU_OLD))) $(if $(GPU_NEW),$(call gpu_code,90,$(GPU_NEW)))
FLAGS_gpu/kernels.c := -DGPU_IMAGES='"$(BUILD)/gpu/images.h"' -DGPU_BUILT_FOR='"$(GPU_MAKES:%=sm_%) and PTX of $(GPU_PTX), by nvcc $(NVCC_VERSION)"'
endif

# The kernels as ordinary C++ in a library that looks like NVIDIA's driver: cards for tests (test/gpu/emu). Kernels are compiled
# with AddressSanitizer and UBSan, where they are on, except for frames on the heap, which fibers make slow; what runs them is
# not, and only tells AddressSanitizer of its stacks. Nothing of it is for ThreadSanitizer, which sees the program around it; so
# that build and the release one share what is compiled.
CXX       := $(if $(findstring clang,$(CC)),$(subst clang,clang++,$(CC)),$(if $(findstring gcc,$(CC)),$(subst gcc,g++,$(CC)),c++))
EMU       := $(BUILD)/libcuda-emu.so
EMU_SANE  := $(if $(findstring address,$(OPT)),-fsanitize=address$(comma)undefined)
EMU_DIR   := $(if $(EMU_SANE)$(findstring clang,$(CXX)),$(BUILD),build-emu)
EMU_SRC   := $(sort $(wildcard test/gpu/emu/*.cpp test/gpu/ptx/*.cpp test/gpu/emu/*.cu gpu/*.cu))
EMU_OBJ   := $(EMU_SRC:%=$(EMU_DIR)/%.emu.o)
EMU_FLAGS := -std=c++17 -Wall -Wextra -Werror -I. -O2 -ffp-contract=off -fno-strict-aliasing -fno-omit-frame-pointer -fPIC \
             -fvisibility=hidden -g $(if $(EMU_SANE),-DEMU_ASAN)
EMU_FLAGS_cpp := -O3
EMU_FLAGS_cu  := $(if $(EMU_SANE),$(EMU_SANE) -fno-sanitize-recover=undefined \
                   $(if $(findstring clang,$(CXX)),-fsanitize-address-use-after-return=never,--param asan-use-after-return=0))
FLAGS_test/unit/gpu_rig.c := -DEMU_LIBRARY='"$(abspath $(EMU))"'

# V=1 shows whole commands.
Q      := $(if $(V),,@)
say    := $(if $(V),@:,@echo)
define \n


endef

obj     = $(patsubst %.c,$(BUILD)/%.o,$(1))
OURS    := $(BUILD)/libcmd.a $(BUILD)/libnet.a $(BUILD)/libgpu.a $(BUILD)/libtok.a $(BUILD)/libcore.a

# -l:NAME.a names the static archive: only glibc is linked dynamically.
TLS    := $(VENDOR)/libmbedtls.a $(VENDOR)/libmbedx509.a $(VENDOR)/libmbedcrypto.a
LIBS   := $(VENDOR)/libyyjson.a $(TLS) -l:libpcre2-8.a -l:libutf8proc.a \
           -l:libevent_extra.a -l:libevent_core.a
EDIT   := -l:libedit.a -l:libtinfo.a -l:libbsd.a -l:libmd.a
# The names of our mbedTLS stay inside: a shared library of the test runner brings another version of it, and would take
# these functions for its own.
SYSTEM := -lm -lpthread -Wl,--exclude-libs,libmbedtls.a:libmbedx509.a:libmbedcrypto.a
link    = $(say) "  link $@"$(\n)$(Q)$(CC) $(CFLAGS) $(LINK) -o $@ $(filter %.o,$^) $(OURS) $(LIBS)

.PHONY: all unit replay loads fuzz objects clean FORCE
.DELETE_ON_ERROR:
all: $(BUILD)/splitinf
unit: $(BUILD)/unit
objects: $(call obj,$(ALL_C))
clean:
	rm -rf build build-* compile_commands.json splitinf splitinf-static

# A stamp holds a text and is written only when the text has changed, so that what depends on it is made again when the
# compiler, a flag, the list of sources or the commit is another one, and only then.
CC_ID := $(CC) $(shell $(CC) --version | head -n 1)
$(BUILD)/.flags:   TEXT = $(CC_ID) $(CFLAGS) $(foreach v,$(sort $(filter FLAGS_core/%,$(.VARIABLES))),$($(v)))
$(BUILD)/.sources: TEXT = $(ALL_C) $(UNIT_C)
$(BUILD)/.version: TEXT = $(VERSION) $(COMMIT)
$(BUILD)/.flags $(BUILD)/.sources $(BUILD)/.version $(BUILD)/gpu/images.h $(IMAGES)/.flags \
$(EMU_DIR)/.emu_flags $(EMU_DIR)/.emu_sources: FORCE
	@mkdir -p $(@D)
	@echo '$(TEXT)' | cmp -s - $@ || echo '$(TEXT)' > $@

$(BUILD)/%.o: %.c $(BUILD)/.flags | $(VENDOR)/.key
	@mkdir -p $(@D)
	$(say) "  cc $<"
	$(Q)$(CC) $(CFLAGS) $(FLAGS_$<) -MMD -MP -c $< -o $@
$(BUILD)/cmd/version.o: $(BUILD)/.version

$(BUILD)/libcmd.a: $(call obj,$(CMD_C)) $(BUILD)/.sources
$(BUILD)/libnet.a: $(call obj,$(NET_C)) $(BUILD)/.sources
$(BUILD)/libgpu.a: $(call obj,$(GPU_C)) $(BUILD)/.sources
$(BUILD)/libcore.a: $(call obj,$(CORE_C)) $(BUILD)/.sources
$(BUILD)/libtok.a: $(call obj,$(TOK_C)) $(BUILD)/.sources
$(OURS):
	@rm -f $@
	$(Q)ar rcs $@ $(filter %.o,$^)

$(VENDOR)/.key: vendor/pins vendor/build.sh
	vendor/build.sh $(VENDOR)
	@touch $@

$(BUILD)/splitinf: $(BUILD)/main.o $(OURS) $(VENDOR)/.key
	$(link) $(EDIT) $(SYSTEM)

# Criterion hands tests to its processes through memory at an address that ThreadSanitizer keeps for itself. There a small
# runner of our own takes that part over, and only tests of what has threads are run: the others would take long for nothing
# (families, on the CPU and on cards, and tok_golden use threads to be quick, the same ones as their smaller sisters; so do
# audit, known and small_model, which are long; trees uses none).
CRITERION := -lcriterion
ifeq ($(MODE),tsan)
RUNNER := $(BUILD)/test/forkrun.o
UNIT_C := $(filter-out test/unit/test_%,$(UNIT_C)) \
          $(filter-out $(patsubst %,test/unit/test_%.c,families gpu_families trees tok_golden audit known small_model), \
          $(shell grep -lE 'pthread|(base/pool|cpu/cpu|net/(cloud/batch|cloud/cloud|client/remote_middle|link|identity)|model/backend|model/weights|decode/session|unit/model_rig|gpu/stage)\.h"' \
                  test/unit/test_*.c))
endif

# All unit tests in one runner, or one module's in a program of its own; files that are not test_*.c are helpers of all.
HELPERS := $(call obj,$(filter-out test/unit/test_%,$(UNIT_C)))
$(BUILD)/unit: $(call obj,$(UNIT_C)) $(RUNNER) $(OURS) $(BUILD)/.sources | $(EMU) $(TEST_PTX)
	$(link) $(CRITERION) $(SYSTEM)
$(BUILD)/test/unit/%: $(BUILD)/test/unit/%.o $(HELPERS) $(RUNNER) $(OURS) | $(EMU)
	$(link) $(CRITERION) $(SYSTEM)

# A fuzz target with libFuzzer (clang), or with a main function that runs it over files: each corpus is a test.
$(foreach c,$(FUZZ_C),$(eval FLAGS_$(c) := -Wno-missing-prototypes))
FUZZERS := $(FUZZ_C:test/fuzz/%.c=$(BUILD)/%)
REPLAYS := $(FUZZ_C:test/fuzz/fuzz_%.c=$(BUILD)/replay_%)
fuzz: $(FUZZERS)
replay: $(REPLAYS)
$(FUZZERS): $(BUILD)/fuzz_%: $(BUILD)/test/fuzz/fuzz_%.o $(OURS)
	$(link) -fsanitize=fuzzer $(SYSTEM)
$(REPLAYS): $(BUILD)/replay_%: $(BUILD)/test/fuzz/fuzz_%.o $(BUILD)/test/fuzz/replay.o $(OURS)
	$(link) $(SYSTEM)

# Small programs that the comparisons with the oracles drive, and measurements.
$(BUILD)/test/tools/%: $(BUILD)/test/tools/%.o $(OURS)
	$(link) $(SYSTEM)
$(BUILD)/test/bench/%: $(BUILD)/test/bench/%.o $(OURS)
	$(link) $(SYSTEM)
loads: $(BUILD)/test/bench/split_load $(BUILD)/test/bench/split_speed

# Emulated cards.
$(EMU_DIR)/.emu_flags: TEXT = $(CXX) $(EMU_FLAGS) $(EMU_FLAGS_cpp) $(EMU_FLAGS_cu)
$(EMU_DIR)/.emu_sources: TEXT = $(EMU_SRC)
$(EMU_DIR)/%.emu.o: % $(EMU_DIR)/.emu_flags
	@mkdir -p $(@D)
	$(say) "  c++ $<"
	$(Q)$(CXX) $(EMU_FLAGS) $(EMU_FLAGS_$(subst .,,$(suffix $<))) -MMD -MP -x c++ -c $< -o $@
$(EMU): $(EMU_OBJ) $(EMU_DIR)/.emu_sources
	@mkdir -p $(@D)
	$(say) "  link $@"
	$(Q)$(CXX) $(EMU_FLAGS) $(EMU_SANE) -shared -Wl,-z,relro,-z,now -o $@ $(EMU_OBJ)

# The images of kernels for cards.
$(IMAGES)/.flags: TEXT = $(shell $(NVCC) --version | tail -n 1) $(NVCC_FLAGS)
$(IMAGES)/%.fatbin: gpu/%.cu $(IMAGES)/.flags
	$(say) "  nvcc $< for $(GPU_MAKES:%=sm_%)$(if $(GPU_LACKS), (not$(GPU_LACKS:%= sm_%): this nvcc does not know them))"
	@rm -rf $(IMAGES)/$*.keep && mkdir $(IMAGES)/$*.keep
	$(Q)$(NVCC) $(NVCC_FLAGS) -fatbin --keep --keep-dir $(IMAGES)/$*.keep -MMD -MF $(IMAGES)/$*.d -MT $@ -o $@.part $< \
	    >$(IMAGES)/$*.log 2>&1 || { cat $(IMAGES)/$*.log >&2; exit 1; }
	@for ptx in $(GPU_PTX); do mkdir -p $(IMAGES)/$$ptx; \
	    mv $(IMAGES)/$*.keep/$*$(if $(word 2,$(GPU_PTX)),.$$ptx).ptx $(IMAGES)/$$ptx/$*.ptx || exit 1; done
	@rm -rf $(IMAGES)/$*.keep && mv $@.part $@
$(IMAGES)/%/test_kernels.ptx: test/gpu/emu/test_kernels.cu gpu/simt.cuh test/gpu/emu/test_kernels.h $(IMAGES)/.flags
	@mkdir -p $(@D)
	$(say) "  nvcc $< to PTX of $*"
	$(Q)$(NVCC) -std=c++17 -O3 --fmad=false -I. -Werror all-warnings -arch=$* -ptx -o $@ $<
$(BUILD)/gpu/images.h: TEXT = $(foreach f,$(FATBINS),IMAGE($(basename $(notdir $f)), "$f"))
$(BUILD)/gpu/kernels.o: $(BUILD)/gpu/images.h $(FATBINS)

# For clang-tidy and editors.
json_entry = {"directory":"$(CURDIR)","file":"$(1)","command":"$(subst ",\",$(CC) $(CFLAGS) $(FLAGS_$(1))) -c $(1)"}
compile_commands.json: $(BUILD)/gpu/images.h $(BUILD)/.flags $(BUILD)/.sources $(BUILD)/.version Makefile
	@: $(file >$@,[) $(foreach c,$(ALL_C) $(UNIT_C) $(FUZZ_C),$(file >>$@,$(call json_entry,$(c)),))
	@sed -i -e '$$ s/,$$//' $@ && echo ']' >> $@

.SECONDARY:
-include $(shell find $(sort $(BUILD) $(IMAGES) $(EMU_DIR)) -name '*.d' 2>/dev/null)
