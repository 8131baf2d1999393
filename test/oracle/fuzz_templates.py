#!/usr/bin/env python3
"""Random small templates, rendered by transformers and by our interpreter, compared byte for byte.

    make build/test/tools/render_template
    python3 test/oracle/fuzz_templates.py build/test/tools/render_template --seconds 60 --seed 1

Where the oracle gives text, ours must give the same text or name a construct that it refuses (REFUSED). Where the oracle
fails, ours must fail; where the template raises, with the same words."""
import argparse
import json
import random
import re
import subprocess
import sys
import time
import warnings
from collections import Counter

from template_oracle import render

warnings.simplefilter("ignore")

REFUSED = re.compile(
    r"(is|are) not supported|became too large|printing a "
    r"|takes 0 to 15 places|too large|are nested deeper|several subscripts|does not add strings|cannot be rounded"
    r"|the test 'sameas'|is too large|needs a sequence that can be reversed|comparing values of type")

OBJECT = re.compile(r"(?i)<(generator|built-in|bound|function|class|macro|loopcontext|namespace|list_|tuple|str_|range_|dict_|reversed)")

VARS = {
    "messages": [{"role": "user", "content": "Hi <b> & 'there'"}, {"role": "assistant", "content": "  Über \n"},
                 {"role": "user", "content": "</s> {{ x }}"}],
    "s": "Hello, World", "u": "Äöß ΣΊΣΥΦΟΣ ǆ 😀 e\u0301", "w": " \t pad\u00a0\n", "e": "", "q": "it's \"q\" \\ \x01\x7f\u2028",
    "n": 3, "z": 0, "m": -7, "f": 2.5, "g": -0.125, "t": True, "x": False, "nil": None,
    "l": [3, 1, 2], "ls": ["b", "A", "c", "a"], "ll": [[1, "x"], [2, "y"]], "el": [],
    "d": {"b": 1, "a": [1, 2], "items": "shadow", "name": "Ann"}, "ed": {},
    "ld": [{"n": 2, "k": "x"}, {"n": 1, "k": "Y"}, {"n": 2}],
    "mixed": [1, "1", 1.0, None, True, [], {}],
}
NAMES = [k for k in VARS if k != "messages"] + ["undef", "messages", "i", "v", "loop", "ns"]
STRS = ["", "a", "x", " ", "\\n", "lo", "Hello", ",", "é", "ab ab", "user", "role", "n", "k", "%d %b %Y"]
METHODS = ["strip()", "lstrip()", "rstrip()", "strip('Hl ')", "split()", "split(',')", "split('l', 1)", "rsplit('l', 1)",
           "rsplit(none, 1)", "split(none, 1)", "splitlines()", "splitlines(true)", "startswith('He')", "endswith('d')",
           "startswith(('x', 'H'))", "upper()", "lower()", "title()", "capitalize()", "replace('l', 'L')",
           "replace('l', '', 1)", "replace('', '-')", "find('o')", "rfind('o')", "count('l')", "join(ls)", "join(['a'])",
           "removeprefix('He')", "removesuffix('ld')", "items()", "keys()", "values()", "get('a')", "get('zz', 5)", "copy()"]
FILTERS = ["trim", "upper", "lower", "capitalize", "title", "length", "count", "default('D')", "d('D', true)",
           "default('D', boolean=true)", "string", "tojson", "tojson(indent=2)", "tojson(sort_keys=true)",
           "tojson(separators=(',', ':'))", "tojson(ensure_ascii=true)", "replace('l', '1')", "replace('a', 'b', 1)", "indent",
           "indent(2, true)", "indent('> ', blank=true)", "int", "int(9)", "float", "float(1.5)", "abs", "round", "round(1)",
           "round(0, 'ceil')", "round(1, 'floor')", "list", "items", "reverse", "first", "last", "join", "join(', ')",
           "join('-', attribute='k')", "sum", "sum(attribute='n')", "min", "max", "sort", "sort(reverse=true)",
           "sort(attribute='n')", "sort(case_sensitive=true)", "unique", "dictsort", "dictsort(by='value')",
           "dictsort(reverse=true)", "map('upper')", "map('string')", "map(attribute='k')", "map(attribute='k', default='?')",
           "map('default', 'Z')", "select", "select('string')", "select('equalto', 1)", "reject('none')", "reject",
           "selectattr('k')", "selectattr('n', 'equalto', 2)", "rejectattr('k', 'defined')", "selectattr('n', 'gt', 1)",
           "selectattr('role', 'equalto', 'user')", "map(attribute='content')", "safe", "escape", "trim('Hd')"]
TESTS = ["defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "integer", "float", "boolean",
         "true", "false", "odd", "even", "divisibleby 3", "divisibleby(2)", "eq 3", "equalto('a')", "ne none", "in [1, 2]",
         "in 'Hello'", "lt 3", "ge 2.5", "upper", "lower", "callable", "sameas true", "sameas none", "gt 0"]


class Gen:
    def __init__(self, rng):
        self.r = rng
        self.loops = 0

    def pick(self, xs):
        return self.r.choice(xs)

    def atom(self):
        k = self.r.random()
        if k < .55:
            return self.pick(NAMES)
        if k < .7:
            return self.pick(["0", "1", "2", "3", "-1", "10", "1.5", "0.1", "1e3", "2.0", "1_000"])
        if k < .85:
            return "%s" % self.pick(["'%s'", '"%s"']) % self.pick(STRS)
        if k < .9:
            return self.pick(["true", "false", "none", "True", "None"])
        return self.pick(["[]", "{}", "()", "[1, 'a', none]", "{'a': 1, 'b': s}", "(1, 2)", "(n,)", "range(3)", "range(4, 0, -1)",
                          "range(1, 9, 3)", "dict(a=1)", "dict(d, q=2)", "namespace(a=1)", "[s, u]", "{1: 2, 'k': [n]}",
                          "messages[0]", "messages[-1].content", "d.items", "d['items']", "d.items()", "loop.index",
                          "loop.last", "loop.length", "loop.first", "loop.previtem", "loop.nextitem", "loop.revindex",
                          "loop.revindex0", "loop.cycle('a', 'b')", "loop.depth", "ns.a", "strftime_now('%d %b %Y %j %A')", "'a' 'b'"])

    def expr(self, depth):
        """Mostly of a known type, so that most templates mean something; sometimes anything."""
        k = self.r.random()
        if k < .12:
            return self.wild(depth)
        return self.pick([self.str_, self.str_, self.num, self.seq, self.bool_, self.dict_])(depth)

    def str_(self, depth):
        if depth <= 0:
            return self.pick(["s", "u", "w", "e", "q", "messages[0].content", "messages[-1]['content']", "messages[1].role", "'a'",
                              "ls[0]", "d.name", '"%s"' % self.pick(STRS)])
        x = self.str_(depth - 1)
        a = lambda: self.str_(0)
        n = lambda: self.pick(["", "1", "-1", "2", "-2", "n", "99", "none", "m"])  # jinja2 folds a constant sliced by 1.5 to ""
        if self.r.random() < .1:
            x = f"({x}|{self.pick(['safe', 'e'])})"
        return self.pick([
            lambda: f"({x} + {self.str_(depth - 1)})", lambda: f"({x} ~ {self.expr(depth - 1)})", lambda: f"{x}.strip()",
            lambda: f"{x}.lstrip({a()})", lambda: f"{x}.rstrip({a()})", lambda: f"{x}.{self.pick(['upper', 'lower', 'title', 'capitalize'])}()",
            lambda: f"({x}|{self.pick(['upper', 'lower', 'title', 'capitalize', 'trim', 'string', 'tojson', 'indent', 'reverse'])})",
            lambda: f"{x}.replace({a()}, {a()})", lambda: f"({x}|replace({a()}, {a()}, {self.num(0)}))", lambda: f"{x}[{n()}:{n()}]",
            lambda: f"{x}[{n()}:{n()}:{self.pick(['1', '-1', '2', '-2', '3'])}]", lambda: f"({x}|default({a()}, true))",
            lambda: f"({self.seq(depth - 1)}|join({a()}))", lambda: f"{a()}.join({self.pick(['ls', x])})",
            lambda: f"({self.expr(depth - 1)}|string)", lambda: f"({x} if {self.bool_(depth - 1)} else {a()})", lambda: f"{x}.split({a()})[0]",
            lambda: f"{x}.split({a()})[-1]", lambda: f"({self.dict_(depth - 1)}|tojson({self.pick(['', 'indent=2', 'sort_keys=true', 'indent=1'])}))",
            lambda: f"({self.seq(depth - 1)}|tojson)", lambda: f"({x}|{self.pick(['safe', 'escape'])})", lambda: f"({x} * {self.pick('0123')})", lambda: f"{x}.removeprefix({a()})",
            lambda: f"({x}|indent({self.pick(['1', '2', repr('> ')])}, {self.pick(['true', 'false'])}, {self.pick(['true', 'false'])}))",
            lambda: f"strftime_now({self.pick([repr('%Y-%m-%d'), repr('%d %b %Y'), repr('%A, %B %-d %y %U %W %w %u %j %H:%M:%S %I %p %%')])})",
        ])()

    def num(self, depth):
        if depth <= 0:
            return self.pick(["n", "z", "m", "f", "g", "t", "0", "1", "2", "-3", "1.5", "10", "0.1", "loop.index0|d(4)" if self.loops else "3"])
        x, y = self.num(depth - 1), self.num(depth - 1)
        return self.pick([
            lambda: f"({x} {self.pick('+-*')} {y})", lambda: f"({x} {self.pick(['/', '//', '%'])} {y})", lambda: f"(-{x})", lambda: f"(+{x})",
            lambda: f"({self.seq(depth - 1)}|length)", lambda: f"({self.str_(depth - 1)}|length)", lambda: f"({x}|abs)", lambda: f"({x}|int)",
            lambda: f"({x}|float)", lambda: f"({self.str_(depth - 1)}|int({y}))", lambda: f"({x}|round({self.pick(['', '1', '2', '0, ' + repr('ceil')])}))",
            lambda: f"({self.str_(depth - 1)}.find({self.str_(0)}))", lambda: f"({x} ** {self.pick(['0', '1', '2', '3', '-1', '0.5'])})",
            lambda: f"([{x}, {y}]|{self.pick(['sum', 'min', 'max', 'first', 'last'])})", lambda: f"{self.str_(0)}.count({self.str_(0)})",
            lambda: f"({x} if {self.bool_(depth - 1)} else {y})"])()

    def bool_(self, depth):
        if depth <= 0:
            return self.pick(["t", "x", "true", "false", "loop.first" if self.loops else "t", "loop.last" if self.loops else "x"])
        return self.pick([
            lambda: f"({self.num(depth - 1)} {self.pick(['==', '!=', '<', '<=', '>', '>='])} {self.num(depth - 1)})",
            lambda: f"({self.str_(depth - 1)} {self.pick(['==', '!=', '<', '<=', '>', '>=', 'in', 'not in'])} {self.str_(depth - 1)})",
            lambda: f"({self.expr(depth - 1)} is {self.pick(['', 'not '])}{self.pick(TESTS)})", lambda: f"(not {self.bool_(depth - 1)})",
            lambda: f"({self.bool_(depth - 1)} {self.pick(['and', 'or'])} {self.bool_(depth - 1)})",
            lambda: f"({self.expr(depth - 1)} {self.pick(['==', '!='])} {self.expr(depth - 1)})",
            lambda: f"({self.expr(0)} in {self.seq(depth - 1)})", lambda: f"({self.str_(0)} in {self.dict_(depth - 1)})",
            lambda: f"{self.str_(depth - 1)}.{self.pick(['startswith', 'endswith'])}({self.str_(0)})",
            lambda: f"({self.num(0)} < {self.num(0)} <= {self.num(0)})"])()

    def seq(self, depth):
        if depth <= 0:
            return self.pick(["l", "ls", "ld", "ll", "el", "mixed", "messages", "[1, 2]", "(3, 'a')", "['x']", "range(4)"])
        x = self.seq(depth - 1)
        n = lambda: self.pick(["", "1", "-1", "2", "-2", "n", "99"])
        return self.pick([
            lambda: f"{x}[{n()}:{n()}]", lambda: f"{x}[::{self.pick(['-1', '2', '-2', '1'])}]", lambda: f"({self.pick(['l', 'ls', 'll'])} + {self.pick(['l', 'ls', 'el'])})",
            lambda: f"({x}|list)", lambda: f"({x}|reverse|list)", lambda: f"(ls|{self.pick(['sort', 'sort(reverse=true)', 'sort(case_sensitive=true)', 'map(' + repr('upper') + ')|list', 'unique|list'])})",
            lambda: f"(ld|{self.pick(['map(attribute=' + repr('k') + ')', 'selectattr(' + repr('k') + ')', 'selectattr(' + repr('k') + ', ' + repr('defined') + ')', 'rejectattr(' + repr('n') + ', ' + repr('eq') + ', 2)', 'sort(attribute=' + repr('n') + ')', 'sort(attribute=' + repr('n,k') + ')', 'map(attribute=' + repr('k') + ', default=0)'])}|list)",
            lambda: f"({x}|select({self.pick([repr('defined'), repr('none'), repr('string'), repr('odd'), repr('in') + ', ls'])})|list)", lambda: f"({x}|reject({self.pick([repr('none'), repr('number'), ''])})|list)",
            lambda: f"{self.str_(depth - 1)}.split({self.pick(['', self.str_(0), self.str_(0) + ', 1', 'none, 1'])})", lambda: f"{self.str_(depth - 1)}.rsplit({self.pick(['', self.str_(0), self.str_(0) + ', 1', 'none, 1'])})",
            lambda: f"{self.str_(depth - 1)}.splitlines()", lambda: f"({self.str_(depth - 1)}|list)", lambda: f"({self.dict_(depth - 1)}|{self.pick(['list', 'items|list', 'dictsort'])})",
            lambda: f"({self.dict_(depth - 1)}.{self.pick(['keys', 'values', 'items'])}()|list)", lambda: f"[{self.expr(depth - 1)}, {self.expr(depth - 1)}]", lambda: f"(l * {self.pick('012')})",
            lambda: f"range({self.pick(['3', '1, 4', '5, 0, -2', 'n'])})", lambda: f"({x}|map({self.pick([repr('string'), repr('tojson'), repr('default') + ', 1'])})|list)"])()

    def dict_(self, depth):
        if depth <= 0:
            return self.pick(["d", "ed", "messages[0]", "ld[0]", "{'a': 1}", "dict(b=2)"])
        return self.pick([
            lambda: "{'a': %s, 'b': %s}" % (self.expr(depth - 1), self.expr(depth - 1)), lambda: f"dict(d, a={self.expr(depth - 1)})",
            lambda: f"({self.dict_(depth - 1)} or d)", lambda: "{%s: %s}" % (self.str_(0), self.expr(depth - 1)), lambda: f"{self.dict_(depth - 1)}.copy()"])()

    def wild(self, depth):
        if depth <= 0:
            return self.atom()
        k = self.r.randrange(20)
        sub = lambda: self.expr(depth - 1)
        if k < 3:
            return f"{self.paren(sub())}|{self.pick(FILTERS)}"
        if k < 5:
            return f"{self.paren(sub())}.{self.pick(METHODS)}"
        if k < 7:
            return f"{sub()} {self.pick(['+', '-', '*', '/', '//', '%', '~', '+', '~'])} {sub()}"
        if k == 7:
            return f"{sub()} {self.pick(['==', '!=', '<', '>', '<=', '>=', 'in', 'not in'])} {sub()}"
        if k == 8:
            return f"{sub()} {self.pick(['and', 'or'])} {sub()}"
        if k == 9:
            return f"not {sub()}"
        if k == 10:
            return f"{sub()} is {self.pick(['', '', 'not '])}{self.pick(TESTS)}"
        if k == 11:
            return f"({sub()} if {sub()} else {sub()})" if self.r.random() < .8 else f"({sub()} if {sub()})"
        if k == 12:
            return f"{self.paren(sub())}[{self.pick(['0', '-1', '1', 'n', repr('a'), repr('k'), repr('items'), '9', sub()])}]"
        if k == 13:
            b = lambda: self.pick(["", "", "1", "-1", "2", "-2", "n", "99", "none"])
            return f"{self.paren(sub())}[{b()}:{b()}{self.pick(['', ':' + self.pick(['', '1', '-1', '2', '-2'])])}]"
        if k == 14:
            return f"{self.paren(sub())}.{self.pick(['a', 'b', 'k', 'n', 'content', 'role', 'name', 'nope', '0', '1'])}"
        if k == 15:
            return f"[{', '.join(sub() for _ in range(self.r.randrange(3)))}]"
        if k == 16:
            return "{%s}" % ", ".join(f"'{self.pick('abk')}': {sub()}" for _ in range(self.r.randrange(3)))
        if k == 17:
            return f"-{self.paren(sub())}"
        if k == 18:
            return f"({sub()}, {sub()})"
        return self.atom()

    def paren(self, e):
        return e if re.fullmatch(r"\w+", e) or self.r.random() < .3 else f"({e})"

    def tag(self, inner):
        return "{%" + self.pick(["", "", "-", "+"]) + " " + inner + " " + self.pick(["", "", "-", "+"]) + "%}"

    def out(self, e):
        return "{{" + self.pick(["", "-", ""]) + " " + e + " " + self.pick(["", "-", ""]) + "}}"

    def text(self):
        return self.pick(["", " ", "\n", "  \n", "x", "\n\n", " y ", "\n  ", "é\n", "a\t", "}}", "%}", "\r\n", "{ "])

    def stmts(self, depth):
        return "".join(self.text() + self.stmt(depth) for _ in range(self.r.randrange(1, 4))) + self.text()

    def stmt(self, depth):
        k = self.r.randrange(16)
        e = lambda: self.expr(self.r.randrange(4))
        if depth <= 0 or k < 6:
            return self.out(e())
        body = lambda: self.stmts(depth - 1)
        if k < 8:
            alt = "" if self.r.random() < .5 else self.tag("elif " + e()) + body()
            alt += "" if self.r.random() < .5 else self.tag("else") + body()
            return self.tag("if " + e()) + body() + alt + self.tag("endif")
        if k < 11:
            it = self.pick([e(), "l", "ls", "messages", "range(3)", "ld", "s", "d", "d.items()", "d|items", "ll"])
            target = self.pick(["i", "i", "v", "i, v"]) if it not in ("d.items()", "ll", "d|items") else "i, v"
            cond = "" if self.r.random() < .7 else f" if {self.pick([e(), 'i', 'i != 1', 'not loop', 'v is defined'])}"
            self.loops += 1
            b = body()
            if self.r.random() < .3:
                b += self.tag("if " + e()) + self.tag(self.pick(["break", "continue"])) + self.tag("endif") + self.text()
            self.loops -= 1
            alt = "" if self.r.random() < .7 else self.tag("else") + body()
            return self.tag(f"for {target} in {it}{cond}") + b + alt + self.tag("endfor")
        if k < 13:
            return self.tag(f"set {self.pick(['i', 'v', 's', 'n', 'ns.a', 'i, v', 'l'])} = {e()}")
        if k == 13:
            return self.pick([
                lambda: self.tag("set " + self.pick(["i", "v|upper", "s"])) + body() + self.tag("endset"),
                lambda: self.tag("filter " + self.pick(["upper", "trim|title", "replace('a', 'b')"])) + body() + self.tag("endfilter"),
                lambda: self.tag(f"with i = {e()}, v = {e()}") + body() + self.tag("endwith"),
                lambda: self.tag("generation") + body() + self.tag("endgeneration"),
                lambda: self.tag("raw") + self.text() + "{{ x }}" + self.tag("endraw"),
            ])()
        if k == 14:
            name = self.pick(["mac", "mac2"])
            return (self.tag(f"macro {name}(i, v={e()})") + body() + self.tag("endmacro") + self.text() +
                    self.out(f"{name}({self.pick([e(), '', e() + ', ' + e(), 'v=' + e(), 'i=1, v=2'])})"))
        return self.pick(["{# c #}", "{#- c -#}", "{# c #}\n", self.out("raise_exception('stop ' ~ n)")])

    def template(self):
        pre = self.pick(["", "{% set ns = namespace(a=0) %}", "{%- set ns = namespace() -%}\n"])
        return pre + self.stmts(3)


class Ours:
    def __init__(self, tool):
        self.p = subprocess.Popen([tool, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def render(self, template, variables):
        for part in (template, variables):
            b = part.encode()
            self.p.stdin.write(b"%d\n%s" % (len(b), b))
        self.p.stdin.flush()
        kind, n = self.p.stdout.readline().split()
        return kind.decode(), self.p.stdout.read(int(n)).decode("utf-8", "surrogateescape")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("tool")
    ap.add_argument("--seconds", type=float, default=60)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--show", type=int, default=5, help="stop after so many differences")
    a = ap.parse_args()
    ours, bad, counts, refused = Ours(a.tool), 0, Counter(), Counter()
    end, seed, variables = time.time() + a.seconds, a.seed, json.dumps(VARS)
    while time.time() < end and bad < a.show:
        src = Gen(random.Random(seed)).template()
        want, got = render(src, VARS), ours.render(src, variables)
        if want[0] == "ok" and OBJECT.search(want[1]):
            same = got[0] != "ok"  # it printed an object with its address
        elif want[0] == "ok":
            same = got == want or (got[0] == "model" and bool(REFUSED.search(got[1])))
            if got[0] == "model" and same:
                refused[re.sub(r"^.*line \d+: ", "", got[1])] += 1
        elif want[0] == "usage":
            hidden = got[1].split("[...]")  # what came out of user data is not in our messages
            same = got[0] == "model" or got == want or (
                got[0] == "usage" and len(hidden) > 1 and want[1].startswith(hidden[0]) and want[1].endswith(hidden[-1]))
        else:
            same = got[0] != "ok"
        counts[want[0], got[0]] += 1
        if not same:
            bad += 1
            print(f"--- seed {seed}\n{src!r}\n  oracle {want}\n  ours   {got}")
        seed += 1
    print({f"{k[0]}/{k[1]}": n for k, n in sorted(counts.items())})
    for what, n in refused.most_common(25):
        print(f"  refused {n:5} {what}")
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
