#include "test/gpu/ptx/lex.h"
#include "test/gpu/ptx/program.h"

#include <cctype>
#include <cstdlib>

namespace ptx {

lexer::lexer(const std::string &file, std::string_view text, size_t at, int line)
    : file(file), text(text), at(at), line(line) {
    read();
}

void lexer::bad(const std::string &what, int in_line) const {
    throw bad_program(file + ":" + std::to_string(in_line > 0 ? in_line : ahead.line) + ": " + what);
}

static bool in_word(char c) {
    return isalnum((unsigned char)c) || c == '_' || c == '$' || c == '%' || c == '.';
}

void lexer::read() {
    for (; at < text.size(); at++) {
        if (text[at] == '\n')
            line++;
        else if (text.compare(at, 2, "//") == 0) {
            while (at + 1 < text.size() && text[at + 1] != '\n')
                at++;
        } else if (text.compare(at, 2, "/*") == 0) {
            for (at += 2; at < text.size() && text.compare(at, 2, "*/") != 0; at++)
                line += text[at] == '\n';
            at++;
        } else if (!isspace((unsigned char)text[at]))
            break;
    }
    ahead_at = at;
    ahead = {token::END, {}, line};
    if (at >= text.size())
        return;
    size_t from = at;
    if (text[at] == '"') {
        at = text.find('"', at + 1);
        if (at == text.npos)
            bad("a text without end");
        at++;
        ahead.kind = token::TEXT;
    } else if (in_word(text[at])) {
        bool number = isdigit((unsigned char)text[at]);
        /* "::" is part of a modifier, ":" ends a label. */
        while (at < text.size() && (in_word(text[at]) || (text.compare(at, 2, "::") == 0 && at++)))
            at++;
        ahead.kind = number ? token::NUMBER : token::WORD;
    } else {
        at++;
        ahead.kind = token::SIGN;
    }
    ahead.text = text.substr(from, at - from);
}

token lexer::next() {
    token t = ahead;
    if (t.kind == token::END)
        bad("the text ends too early");
    read();
    return t;
}

bool lexer::accept(const char *what) {
    if (ahead.kind == token::END || ahead.text != what)
        return false;
    read();
    return true;
}

token lexer::expect(const char *what) {
    if (ahead.kind == token::END || ahead.text != what)
        bad(std::string("\"") + std::string(ahead.text) + "\" where \"" + what + "\" belongs");
    return next();
}

token lexer::word() {
    if (ahead.kind != token::WORD)
        bad("\"" + std::string(ahead.text) + "\" where a name belongs");
    return next();
}

long lexer::number() {
    bool negative = accept("-");
    if (ahead.kind != token::NUMBER)
        bad("\"" + std::string(ahead.text) + "\" where a number belongs");
    std::string digits(ahead.text);
    char *end;
    unsigned long long v = strtoull(digits.c_str(), &end, 0);
    if (*end != 0 && *end != 'U')
        bad("\"" + digits + "\" is no number");
    read();
    return negative ? (long)(0 - v) : (long)v;
}

void lexer::skip_braces() {
    size_t i = ahead_at;
    int in_line = ahead.line;
    for (int depth = 1; depth > 0; i++) {
        if (i >= text.size())
            bad("a bracket is not closed");
        char c = text[i];
        if (c == '{')
            depth++;
        else if (c == '}')
            depth--;
        else if (c == '\n')
            in_line++;
        else if (c == '/' && text.compare(i, 2, "//") == 0)
            while (i + 1 < text.size() && text[i + 1] != '\n')
                i++;
    }
    at = i;
    line = in_line;
    read();
}

} // namespace ptx
