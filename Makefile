# Build rules. ./build.sh is the way in: it sees to dependencies and calls this with the right variables.
#   BUILD=dir  where objects go        MODE=release|debug|tsan|static|fuzz
BUILD ?= build
MODE  ?= release
ARCH  := $(shell $(CC) -dumpmachine | cut -d- -f1)
VENDOR := vendor/build

CSTD   := -std=c11 -D_GNU_SOURCE
WARN   := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla
# No contraction by the compiler: fused multiply-adds stand where the code says so, for equal bits everywhere.
BASE   := $(CSTD) $(WARN) -I. -isystem $(VENDOR)/include -ffp-contract=off -fno-strict-aliasing -fPIE -g
OPT    := -O2
LDMODE := -pie
ifeq ($(MODE),debug)
OPT    := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
endif
ifeq ($(MODE),tsan)
OPT    := -O1 -fno-omit-frame-pointer -fsanitize=thread
endif
CFLAGS  = $(BASE) $(OPT) $(EXTRA_CFLAGS)
LDLIBS  = -lm -lpthread

CORE_C := $(wildcard core/base/*.c core/model/*.c core/decode/*.c core/draft/*.c core/privacy/*.c) \
          $(filter-out core/cpu/isa_%,$(wildcard core/cpu/*.c)) core/cpu/isa_portable.c
ifeq ($(ARCH),x86_64)
CORE_C += core/cpu/isa_avx2.c core/cpu/isa_avx512.c
endif
ifeq ($(ARCH),aarch64)
CORE_C += core/cpu/isa_neon.c
endif
CORE_C := $(filter $(wildcard core/*/*.c),$(CORE_C))
TOK_C  := $(wildcard tok/*.c)
NET_C  := $(wildcard net/*.c)
CMD_C  := $(wildcard cmd/*.c)

obj = $(patsubst %.c,$(BUILD)/%.o,$(1))

PCRE   := -l:libpcre2-8.a
UTF8   := -l:libutf8proc.a
EDIT   := -l:libedit.a -l:libtinfo.a -l:libbsd.a -l:libmd.a
LIBS   := $(VENDOR)/libyyjson.a $(PCRE) $(UTF8)

.PHONY: all
all: $(BUILD)/splitinf

$(BUILD)/core/cpu/isa_avx2.o:   ISA := -mavx2 -mfma -mf16c -O3
$(BUILD)/core/cpu/isa_avx512.o: ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx2 -mfma -mf16c -O3
$(BUILD)/core/cpu/isa_neon.o:   ISA := -O3

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(ISA) -MMD -MP -c $< -o $@

$(BUILD)/libcore.a: $(call obj,$(CORE_C))
$(BUILD)/libtok.a: $(call obj,$(TOK_C))
$(BUILD)/lib%.a:
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/splitinf: $(BUILD)/main.o $(call obj,$(CMD_C)) $(BUILD)/libtok.a $(BUILD)/libcore.a
	$(CC) $(CFLAGS) $(LDMODE) -o $@ $^ $(LIBS) $(EDIT) $(LDLIBS)

# One module's unit tests: make build/test/unit/test_kv && build/test/unit/test_kv
$(BUILD)/test/unit/%: $(BUILD)/test/unit/%.o $(BUILD)/libtok.a $(BUILD)/libcore.a
	$(CC) $(CFLAGS) $(LDMODE) -o $@ $^ $(LIBS) -lcriterion $(LDLIBS)

# All of them in one runner.
UNIT_C := $(wildcard test/unit/*.c)
$(BUILD)/unit: $(call obj,$(UNIT_C)) $(BUILD)/libtok.a $(BUILD)/libcore.a
	$(CC) $(CFLAGS) $(LDMODE) -o $@ $^ $(LIBS) -lcriterion $(LDLIBS)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
