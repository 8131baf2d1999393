/* test/gpu/ptx/lex.h - words of PTX. */
#ifndef PTX_LEX_H
#define PTX_LEX_H

#include <string>
#include <string_view>

namespace ptx {

struct token {
    enum { END, WORD, NUMBER, TEXT, SIGN } kind;
    std::string_view text;
    int line;
};

class lexer {
  public:
    lexer(const std::string &file, std::string_view text, size_t at, int line);
    const token &peek() const {
        return ahead;
    }
    token next();
    /* The next one, if it is that; else nothing happens. */
    bool accept(const char *what);
    token expect(const char *what);
    token word();
    long number();
    /* Behind the bracket that closes one which was just read. */
    void skip_braces();
    /* Where the token that comes next begins. */
    size_t position() const {
        return ahead_at;
    }
    [[noreturn]] void bad(const std::string &what, int in_line = 0) const;

  private:
    void read();
    const std::string &file;
    std::string_view text;
    size_t at, ahead_at = 0;
    int line;
    token ahead;
};

} // namespace ptx

#endif
