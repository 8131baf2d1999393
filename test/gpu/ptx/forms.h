/* test/gpu/ptx/forms.h - the instructions that are known: by their whole opcode with all modifiers, and the kinds of
 * their operands. A new one is a line in forms_*.cpp. */
#ifndef PTX_FORMS_H
#define PTX_FORMS_H

#include "test/gpu/ptx/machine.h"

#include <unordered_map>

namespace ptx {

/* Operands as they follow each other, those that are written before "=":
 *   h r l p   of 16, 32, 64 bits, a predicate: a register, or (not written) a constant
 *   { }       a vector of these
 *   [         an address
 *   |         a second destination, a predicate, which may be absent
 *   i         a number from 0 to 255, for instruction::n
 *   L         a label */
struct form {
    const char *operands;
    void (*run)(warp &w, const instruction &i);
    kind what = kind::plain;
    space where = space::generic;
    uint8_t bytes = 0, n = 0;
    bool read_only = false;
};

class forms {
  public:
    /* All of them. */
    static const forms &known();
    void add(const std::string &opcode, const form &f) {
        all[opcode].push_back(f);
    }
    void add(const std::string &opcode, const char *operands, void (*run)(warp &, const instruction &)) {
        add(opcode, form{operands, run});
    }
    /* nullptr: there is none. What it gives stays. */
    const std::pair<const std::string, std::vector<form>> *find(const std::string &opcode) const {
        auto at = all.find(opcode);
        return at == all.end() ? nullptr : &*at;
    }

  private:
    std::unordered_map<std::string, std::vector<form>> all;
};

/* Each file's part. */
void add_arithmetic(forms &f);
void add_floats(forms &f);
void add_conversions(forms &f);
void add_memory(forms &f);
void add_collectives(forms &f);

} // namespace ptx

#endif
