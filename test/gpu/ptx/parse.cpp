/* test/gpu/ptx/parse.cpp - from text to decoded kernels. What is not understood is an error, never left out. */
#include "test/gpu/ptx/forms.h"
#include "test/gpu/ptx/lex.h"

#include <cstdlib>

namespace ptx {

const forms &forms::known() {
    static const forms *all = [] {
        forms *f = new forms();
        add_arithmetic(*f);
        add_floats(*f);
        add_conversions(*f);
        add_memory(*f);
        add_collectives(*f);
        f->add("bra", form{"=L", nullptr, kind::branch});
        f->add("bra.uni", form{"=L", nullptr, kind::branch});
        f->add("ret", form{"=", nullptr, kind::exit});
        f->add("exit", form{"=", nullptr, kind::exit});
        f->add("bar.sync", form{"=i", nullptr, kind::barrier});
        return f;
    }();
    return *all;
}

namespace {

enum class width { predicate, half, narrow, wide };

struct operand {
    enum type { REGISTER, CONSTANT, VECTOR, ADDRESS, LABEL, NOWHERE };
    explicit operand(type what = NOWHERE, uint64_t value = 0) : what(what), value(value) {
    }
    operand(width of, uint32_t at) : what(REGISTER), of(of), at(at) {
    }
    type what;
    width of = width::narrow; /* a register */
    uint32_t at = 0;          /* its row */
    uint64_t value = 0;       /* a constant, or an address' offset */
    bool is_float = false;
    std::string name;           /* a label */
    std::vector<operand> parts; /* of a vector; an address' register; a second destination */
};

class parser {
  public:
    parser(kernel &k, lexer &in, const std::string &dynamic_shared) : k(k), in(in), dynamic_shared(dynamic_shared) {
    }
    void parse();

  private:
    struct registers {
        width of;
        uint32_t first, n;
    };
    typedef std::map<std::string, registers, std::less<>> scope;

    void parameters();
    void bounds();
    void variable(bool shared);
    void declare();
    void statement();
    void decode(const token &opcode, instruction i);
    operand parse_operand();
    operand parse_constant();
    operand parse_address();
    bool find_register(std::string_view name, operand *o) const;
    bool fits(const operand &o, char c) const;
    bool place(const form &f, const std::vector<operand> &given, instruction *i);
    uint32_t row(const operand &o, char c);
    uint32_t narrow_constant(uint32_t v);
    uint32_t wide_constant(uint64_t v);
    uint32_t special_row(special s);
    static size_t round_up(size_t n, size_t to) {
        return (n + to - 1) / to * to;
    }

    kernel &k;
    lexer &in;
    const std::string &dynamic_shared;
    std::vector<scope> scopes;
    std::map<std::string, uint64_t, std::less<>> symbols; /* addresses, each in its space */
    std::map<std::string, uint32_t> labels;
    std::vector<std::pair<size_t, std::string>> jumps; /* instructions and their labels */
    std::map<uint32_t, uint32_t> narrow_rows;
    std::map<uint64_t, uint32_t> wide_rows;
    std::map<special, uint32_t> special_rows;
};

const struct {
    const char *name;
    special which;
} special_names[] = {
    {"%tid.x", special::tid_x},       {"%tid.y", special::tid_y},       {"%tid.z", special::tid_z},
    {"%ntid.x", special::ntid_x},     {"%ntid.y", special::ntid_y},     {"%ntid.z", special::ntid_z},
    {"%ctaid.x", special::ctaid_x},   {"%ctaid.y", special::ctaid_y},   {"%ctaid.z", special::ctaid_z},
    {"%nctaid.x", special::nctaid_x}, {"%nctaid.y", special::nctaid_y}, {"%nctaid.z", special::nctaid_z},
    {"%laneid", special::laneid},
};

size_t type_bytes(std::string_view type) {
    if (type == ".b8" || type == ".u8" || type == ".s8")
        return 1;
    if (type == ".b16" || type == ".u16" || type == ".s16" || type == ".f16")
        return 2;
    if (type == ".b32" || type == ".u32" || type == ".s32" || type == ".f32")
        return 4;
    if (type == ".b64" || type == ".u64" || type == ".s64" || type == ".f64")
        return 8;
    return 0;
}

/* Rows are counted here; at[] wants their first word. */
uint32_t word_of(uint32_t row) {
    return row * LANES;
}

uint32_t parser::narrow_constant(uint32_t v) {
    auto made = narrow_rows.emplace(v, 0);
    if (made.second) {
        made.first->second = word_of(k.n_narrow++);
        k.narrow_constants.push_back({made.first->second, v});
    }
    return made.first->second;
}

uint32_t parser::wide_constant(uint64_t v) {
    auto made = wide_rows.emplace(v, 0);
    if (made.second) {
        made.first->second = word_of(k.n_wide++);
        k.wide_constants.push_back({made.first->second, v});
    }
    return made.first->second;
}

uint32_t parser::special_row(special s) {
    auto made = special_rows.emplace(s, 0);
    if (made.second) {
        made.first->second = word_of(k.n_narrow++);
        k.specials.push_back({made.first->second, s});
    }
    return made.first->second;
}

/* "(.param .align 8 .b8 name[56])": one after the other, each aligned. */
void parser::parameters() {
    in.expect("(");
    while (!in.accept(")")) {
        in.expect(".param");
        size_t align = 0, n = 1;
        if (in.accept(".align"))
            align = (size_t)in.number();
        token type = in.word();
        size_t bytes = type_bytes(type.text);
        if (bytes == 0)
            in.bad("a parameter of type " + std::string(type.text), type.line);
        token name = in.word();
        if (in.accept("[")) {
            n = (size_t)in.number();
            in.expect("]");
        }
        k.param_bytes = round_up(k.param_bytes, align > 0 ? align : bytes);
        symbols.emplace(name.text, k.param_bytes);
        k.param_bytes += n * bytes;
        in.accept(",");
    }
}

void parser::bounds() {
    while (!in.accept("{")) {
        token t = in.word();
        long n[3] = {in.number(), 1, 1};
        for (int i = 1; i < 3 && in.accept(","); i++)
            n[i] = in.number();
        if (t.text == ".maxntid" || t.text == ".reqntid")
            k.max_threads = (int)(n[0] * n[1] * n[2]);
        else if (t.text != ".minnctapersm" && t.text != ".maxnreg") /* for the assembler alone */
            in.bad("directive " + std::string(t.text) + " is not known", t.line);
    }
}

/* ".shared .align 16 .b8 name[64];" */
void parser::variable(bool shared) {
    size_t align = 1, n = 1;
    if (in.accept(".align"))
        align = (size_t)in.number();
    token type = in.word();
    size_t bytes = type_bytes(type.text);
    if (bytes == 0)
        in.bad("a variable of type " + std::string(type.text), type.line);
    token name = in.word();
    if (in.accept("[")) {
        n = (size_t)in.number();
        in.expect("]");
    }
    in.expect(";");
    size_t &end = shared ? k.shared_bytes : k.local_bytes;
    end = round_up(end, std::max(align, bytes));
    symbols.emplace(name.text, end + (shared ? (size_t)SHARED_FROM : 0));
    end += n * bytes;
}

/* ".reg .b32 %r<398>;" or ".reg .b32 a, b;" */
void parser::declare() {
    token type = in.word();
    width of = width::predicate;
    if (type.text != ".pred") {
        size_t bytes = type_bytes(type.text);
        if (bytes == 0)
            in.bad("registers of type " + std::string(type.text), type.line);
        of = bytes == 8 ? width::wide : bytes == 4 ? width::narrow : width::half;
    }
    do {
        token name = in.word();
        uint32_t n = 1;
        if (in.accept("<")) {
            n = (uint32_t)in.number();
            in.expect(">");
        }
        uint32_t &count = of == width::predicate ? k.n_predicates : of == width::wide ? k.n_wide : k.n_narrow;
        scopes.back()[std::string(name.text)] = {of, count, n};
        count += n;
    } while (in.accept(","));
    in.expect(";");
}

bool parser::find_register(std::string_view name, operand *o) const {
    size_t digits = name.size();
    while (digits > 0 && isdigit((unsigned char)name[digits - 1]))
        digits--;
    for (size_t s = scopes.size(); s-- > 0;) {
        uint32_t number = 0;
        auto at = scopes[s].find(name);
        if (at == scopes[s].end()) {
            at = scopes[s].find(name.substr(0, digits));
            number =
                digits < name.size() ? (uint32_t)strtoul(std::string(name.substr(digits)).c_str(), nullptr, 10) : 0;
        }
        if (at == scopes[s].end() || number >= at->second.n)
            continue;
        uint32_t row = at->second.first + number;
        *o = operand(at->second.of, at->second.of == width::predicate ? row : word_of(row));
        return true;
    }
    return false;
}

operand parser::parse_constant() {
    operand o(operand::CONSTANT);
    bool negative = in.accept("-");
    token t = in.next();
    std::string digits(t.text);
    char *end;
    o.is_float = digits.size() > 2 && digits[0] == '0' && strchr("fFdD", digits[1]);
    o.value = o.is_float ? strtoull(digits.c_str() + 2, &end, 16) : strtoull(digits.c_str(), &end, 0);
    if (t.kind != token::NUMBER || (*end != 0 && strcmp(end, "U") != 0) || (negative && o.is_float))
        in.bad("\"" + digits + "\" is no constant", t.line);
    if (negative)
        o.value = 0 - o.value;
    return o;
}

operand parser::parse_address() {
    operand o(operand::ADDRESS);
    if (in.peek().kind == token::NUMBER)
        o.value = (uint64_t)in.number();
    else {
        token base = in.word();
        operand r;
        auto symbol = symbols.find(base.text);
        if (symbol != symbols.end())
            o.value = symbol->second;
        else if (base.text == dynamic_shared)
            o.value = SHARED_FROM + round_up(k.shared_bytes, 16);
        else if (find_register(base.text, &r))
            o.parts.push_back(r);
        else
            in.bad("nothing is called " + std::string(base.text), base.line);
        if (in.accept("+"))
            o.value += (uint64_t)in.number();
    }
    in.expect("]");
    return o;
}

operand parser::parse_operand() {
    if (in.accept("{")) {
        operand o(operand::VECTOR);
        do
            o.parts.push_back(parse_operand());
        while (in.accept(","));
        in.expect("}");
        return o;
    }
    if (in.accept("["))
        return parse_address();
    if (in.peek().kind != token::WORD)
        return parse_constant();
    token t = in.next();
    operand o;
    if (t.text == "_")
        return operand(operand::NOWHERE);
    for (const auto &s : special_names)
        if (t.text == s.name)
            return operand(width::narrow, special_row(s.which));
    auto symbol = symbols.find(t.text);
    if (symbol != symbols.end())
        return operand(operand::CONSTANT, symbol->second);
    if (t.text == dynamic_shared) /* variables come first in a kernel, so that their size is known */
        return operand(operand::CONSTANT, SHARED_FROM + round_up(k.shared_bytes, 16));
    if (!find_register(t.text, &o)) {
        if (t.text[0] == '%')
            in.bad("register " + std::string(t.text) + " is not known", t.line);
        o = operand(operand::LABEL);
        o.name = t.text;
        return o;
    }
    if (in.accept("|"))
        o.parts.push_back(parse_operand());
    return o;
}

bool parser::fits(const operand &o, char c) const {
    switch (o.what) {
    case operand::REGISTER:
        return o.parts.empty() && o.of == (c == 'p'   ? width::predicate
                                           : c == 'h' ? width::half
                                           : c == 'l' ? width::wide
                                                      : width::narrow);
    case operand::CONSTANT:
        return strchr("hrlp", c) && (!o.is_float || c == 'r' || c == 'l');
    case operand::NOWHERE:
        return true;
    default:
        return false;
    }
}

uint32_t parser::row(const operand &o, char c) {
    if (o.what == operand::REGISTER)
        return o.at;
    if (o.what == operand::NOWHERE)
        return c == 'p' ? k.n_predicates++ : c == 'l' ? word_of(k.n_wide++) : word_of(k.n_narrow++);
    if (c == 'p')
        return o.value != 0 ? NONE : NONE - 1; /* read_predicate knows them */
    return c == 'l'   ? wide_constant(o.value)
           : c == 'h' ? narrow_constant((uint16_t)o.value)
                      : narrow_constant((uint32_t)o.value);
}

/* Puts operands where the form wants them; false: they are others. */
bool parser::place(const form &f, const std::vector<operand> &given, instruction *i) {
    size_t next = 0, part = 0, n_at = 0;
    int n_addresses = 0;
    bool in_vector = false, written = true;
    for (const char *c = f.operands; *c; c++) {
        if (*c == '=') {
            written = false;
            continue;
        }
        if (*c == '}') {
            if (part != given[next].parts.size())
                return false;
            in_vector = false;
            next++;
            continue;
        }
        if (*c == '|')
            continue; /* belongs to the operand before it */
        if (next >= given.size())
            return false;
        const operand &o = given[next];
        if (*c == '{') {
            if (o.what != operand::VECTOR)
                return false;
            in_vector = true;
            part = 0;
        } else if (*c == '[') {
            if (o.what != operand::ADDRESS)
                return false;
            bool wide = o.parts.empty() || o.parts[0].of == width::wide;
            if (!wide && o.parts[0].of != width::narrow)
                return false;
            i->wide[n_addresses] = wide;
            i->offset[n_addresses++] = (int64_t)o.value;
            i->at[n_at++] = o.parts.empty() ? wide_constant(0) : o.parts[0].at;
            next++;
        } else if (*c == 'i') {
            if (o.what != operand::CONSTANT || o.value > 255)
                return false;
            i->n = (uint8_t)o.value;
            next++;
        } else if (*c == 'L') {
            if (o.what != operand::LABEL)
                return false;
            next++;
        } else {
            if (in_vector && part >= o.parts.size())
                return false;
            operand one = in_vector ? o.parts[part] : o;
            std::vector<operand> second;
            if (c[1] == '|')
                second.swap(one.parts);
            if (!fits(one, *c) || (written ? one.what == operand::CONSTANT : one.what == operand::NOWHERE))
                return false;
            i->at[n_at++] = row(one, *c);
            if (c[1] == '|') {
                if (!second.empty() && !fits(second[0], 'p'))
                    return false;
                i->at[n_at++] = second.empty() ? NONE : second[0].at;
            }
            if (in_vector)
                part++;
            else
                next++;
        }
    }
    return next == given.size();
}

void parser::decode(const token &opcode, instruction i) {
    std::vector<operand> given;
    if (!in.accept(";")) {
        do
            given.push_back(parse_operand());
        while (in.accept(","));
        in.expect(";");
    }
    auto known = forms::known().find(std::string(opcode.text));
    if (!known)
        in.bad("instruction " + std::string(opcode.text) + " is not known to test/gpu/ptx", opcode.line);
    for (const form &f : known->second) {
        instruction made = i;
        made.n = f.n;
        if (!place(f, given, &made))
            continue;
        made.run = f.run;
        made.what = f.what;
        made.where = f.where;
        made.bytes = f.bytes;
        made.read_only = f.read_only;
        made.line = opcode.line;
        made.opcode = known->first.c_str();
        if (f.what == kind::branch)
            jumps.push_back({k.code.size(), given[0].name});
        k.code.push_back(made);
        return;
    }
    in.bad("instruction " + std::string(opcode.text) + " with such operands is not known to test/gpu/ptx", opcode.line);
}

void parser::statement() {
    instruction i;
    if (in.accept("@")) {
        i.guard_not = in.accept("!");
        operand p;
        token t = in.word();
        if (!find_register(t.text, &p) || p.of != width::predicate)
            in.bad(std::string(t.text) + " is no predicate", t.line);
        i.guard = p.at;
    } else if (in.accept("{")) {
        scopes.emplace_back();
        return;
    } else if (in.accept("}")) {
        scopes.pop_back();
        return;
    }
    token t = in.word();
    if (t.text == ".reg")
        declare();
    else if (t.text == ".shared" || t.text == ".local")
        variable(t.text == ".shared");
    else if (t.text == ".pragma") { /* advice to the assembler */
        in.next();
        in.expect(";");
    } else if (t.text[0] == '.')
        in.bad("directive " + std::string(t.text) + " is not known", t.line);
    else if (in.accept(":"))
        labels.emplace(t.text, (uint32_t)k.code.size());
    else
        decode(t, i);
}

void parser::parse() {
    k.name = in.word().text;
    parameters();
    bounds();
    scopes.emplace_back();
    int last = 0;
    while (!scopes.empty()) {
        last = in.peek().line;
        statement();
    }
    /* A kernel that does not end with ret ends all the same. */
    instruction end;
    end.what = kind::exit;
    end.line = last;
    end.opcode = "}";
    k.code.push_back(end);
    for (const auto &j : jumps) {
        auto at = labels.find(j.second);
        if (at == labels.end())
            in.bad("there is no label " + j.second, k.code[j.first].line);
        k.code[j.first].target = at->second;
    }
}

} // namespace

/* At the top there are three directives, declarations of memory whose size a launch says, and kernels. */
module::module(std::string file_name, std::string content) :file(std::move(file_name)), text(std::move(content)) {
    lexer in(file, text, 0, 1);
    while (in.peek().kind != token::END) {
        token t = in.word();
        if (t.text == ".version" || t.text == ".target" || t.text == ".address_size")
            in.next();
        else if (t.text == ".extern") {
            in.expect(".shared");
            while (in.peek().text[0] == '.' && in.peek().text != ".align")
                in.next();
            if (in.accept(".align"))
                in.number();
            in.expect(".b8");
            dynamic_shared = in.word().text;
            in.expect("[");
            in.expect("]");
            in.expect(";");
        } else if (t.text == ".visible")
            in.peek();
        else if (t.text == ".entry") {
            entry e = {in.position(), in.peek().line, nullptr};
            std::string name(in.word().text);
            while (!in.accept("{"))
                in.next();
            in.skip_braces();
            entries.emplace(name, std::move(e));
        } else
            in.bad("directive " + std::string(t.text) + " is not known", t.line);
    }
}

module::~module() = default;

std::vector<std::string> module::names() const {
    std::vector<std::string> names;
    for (const auto &e : entries)
        names.push_back(e.first);
    return names;
}

const kernel *module::find(const std::string &name) {
    auto at = entries.find(name);
    if (at == entries.end())
        return nullptr;
    entry &e = at->second;
    if (!e.decoded) {
        std::unique_ptr<kernel> k(new kernel());
        k->file = file;
        lexer in(file, text, e.at, e.line);
        parser(*k, in, dynamic_shared).parse();
        e.decoded = std::move(k);
    }
    return e.decoded.get();
}

} // namespace ptx
