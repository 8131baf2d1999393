/* test/gpu/ptx/program.h - PTX as it is executed: kernels decoded once, registers as places in a warp's rows, labels as
 * indices of instructions. What the text said is kept only where messages need it. */
#ifndef PTX_PROGRAM_H
#define PTX_PROGRAM_H

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace ptx {

struct warp;

enum { LANES = 32, MAX_OPERANDS = 14 };
static const uint32_t NONE = ~0u;

/* Where an instruction's address lies. The kernels' generic addresses are those of the card's memory, and windows
 * that no allocation comes near. */
enum class space : uint8_t { generic, global, shared, param, local };

/* What the loop over instructions has to do about one. */
enum class kind : uint8_t {
    plain,      /* each lane for itself */
    branch,     /* */
    exit,       /* */
    collective, /* by all lanes of a warp together */
    barrier,    /* by all warps of a block */
};

struct instruction {
    void (*run)(warp &w, const instruction &i) = nullptr;
    uint32_t guard = NONE; /* a predicate */
    uint32_t target = 0;   /* of a branch */
    /* Of each operand, in the order of the text, where its row begins among the warp's rows of its width; predicates
     * have words of their own. Constants have rows too. */
    uint32_t at[MAX_OPERANDS] = {};
    int64_t offset[2] = {}; /* of the first and the second address, or an immediate */
    bool wide[2] = {};      /* whether their registers are of 64 bits */
    kind what = kind::plain;
    bool guard_not = false;
    space where = space::generic;
    uint8_t bytes = 0, n = 0; /* of a load or store: of one element, how many */
    bool read_only = false;   /* ld.global.nc */
    int line = 0;
    const char *opcode = "";
};

enum class special : uint8_t {
    tid_x,
    tid_y,
    tid_z,
    ntid_x,
    ntid_y,
    ntid_z,
    ctaid_x,
    ctaid_y,
    ctaid_z,
    nctaid_x,
    nctaid_y,
    nctaid_z,
    laneid
};

struct kernel {
    std::string name, file;
    size_t param_bytes = 0;
    size_t shared_bytes = 0; /* of variables; what a launch asks for comes behind, from a multiple of 16 on */
    size_t local_bytes = 0;  /* of one thread */
    int max_threads = 1024;  /* .maxntid */
    std::vector<instruction> code;
    uint32_t n_narrow = 0, n_wide = 0, n_predicates = 0; /* rows of 32 and of 64 bits, words */
    /* Rows that never change, and those that a block or a thread has. */
    std::vector<std::pair<uint32_t, uint32_t>> narrow_constants;
    std::vector<std::pair<uint32_t, uint64_t>> wide_constants;
    std::vector<std::pair<uint32_t, special>> specials;
};

/* A text that cannot be executed, with its file and line. */
struct bad_program : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/* A file's kernels: found by name when it is read, decoded when they are first asked for. */
class module {
  public:
    module(std::string file, std::string text);
    ~module();
    std::vector<std::string> names() const;
    /* nullptr: none of that name. Throws bad_program. */
    const kernel *find(const std::string &name);

  private:
    struct entry {
        size_t at; /* behind ".entry" */
        int line;
        std::unique_ptr<kernel> decoded;
    };
    std::string file, text;
    std::string dynamic_shared; /* the name of memory whose size launches say */
    std::map<std::string, entry> entries;
};

} // namespace ptx

#endif
