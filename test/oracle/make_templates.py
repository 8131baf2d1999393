#!/usr/bin/env python3
"""Makes test/golden/templates/cases.json: what transformers renders for each template there and each conversation below.

    python3 test/oracle/make_templates.py                       writes the golden file
    python3 test/oracle/make_templates.py --check build/test/tools/render_template [DIR]
                                                                compares our renderer, over the templates of DIR
"""
import json
import os
import sys

from template_oracle import render

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "templates")


def msgs(*pairs):
    return [{"role": r, "content": c} for r, c in pairs]


TOOL = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a place, in \"degrees\" – °C",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": " Name of the city\n"},
        "days": {"type": ["integer", "null"], "minimum": 1, "enum": [1, 2.5, 7]},
        "tags": {"type": "array", "items": {"type": "object", "additionalProperties": {"type": "number"}}}},
        "required": ["city"]},
    "return": {"type": "string"}}}
TOOL2 = {"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "abcDEF123", "type": "function",
        "function": {"name": "get_weather", "arguments": {"city": "Zürich </s>", "days": "2"}}}
CALL2 = {"id": "x23456789", "function": {"name": "now", "arguments": "{}"}}

HI = ("user", "Hello, how are you?")
FINE = ("assistant", "Fine, thanks.\n")
MORE = ("user", "Then tell me more.")
SYS = ("system", "  You are terse. ")

CONVERSATIONS = [
    {"messages": msgs(HI)},
    {"messages": msgs(HI), "add_generation_prompt": True},
    {"messages": msgs(SYS, HI), "add_generation_prompt": True},
    {"messages": msgs(HI, FINE, MORE), "add_generation_prompt": True},
    {"messages": msgs(SYS, HI, FINE, MORE, ("assistant", "No."), ("user", "Why?"))},
    {"messages": msgs(FINE, HI)},
    {"messages": msgs(HI, MORE), "add_generation_prompt": True},
    {"messages": msgs(HI, SYS, FINE)},
    {"messages": msgs(("user", ""), ("assistant", ""), ("user", " \n\t "))},
    {"messages": []},
    {"messages": msgs(("user", "  Grüße, 世界! 👩\u200d🚀 e\u0301\u00a0\u2003ΑΣ ß İ\r\n zwei\u2028drei \x0b vier\u0085 "), ("assistant", "\u3000ok\u00a0"))},
    {"messages": msgs(("user", "{{ 7 * 7 }} {% raise_exception('x') %} {# no #} {%- endfor -%} \\n ${x} %s {0}"))},
    {"messages": msgs(("system", "</s><|im_end|>"), ("user", "<|im_start|>system\nhi<|im_end|> [INST] <s> </s> <|eot_id|> [/INST]")),
     "add_generation_prompt": True},
    {"messages": msgs(HI), "tools": [TOOL], "add_generation_prompt": True},
    {"messages": msgs(SYS, HI), "tools": [TOOL, TOOL2], "tools_in_user_message": False},
    {"messages": msgs(HI) + [{"role": "assistant", "content": None, "tool_calls": [CALL]},
                             {"role": "tool", "name": "get_weather", "tool_call_id": "abcDEF123", "content": "12 °C, \"wet\""}]
     + msgs(FINE, MORE), "tools": [TOOL], "add_generation_prompt": True},
    {"messages": msgs(HI) + [{"role": "assistant", "content": "Let me see.", "tool_calls": [CALL, CALL2]},
                             {"role": "tool", "tool_call_id": "abcDEF123", "content": {"content": 12, "unit": "C"}},
                             {"role": "tool", "tool_call_id": "x23456789", "content": "now"}], "tools": [TOOL2]},
    {"messages": msgs(HI, ("assistant", "<think>\nhm, well\n</think>\n\nYes."), MORE,
                      ("assistant", "<think>again</think>No.")), "enable_thinking": False, "add_generation_prompt": True},
    {"messages": msgs(HI) + [{"role": "assistant", "reasoning_content": "\nquietly\n", "content": "\n\nSo."}] + msgs(MORE),
     "enable_thinking": True, "add_generation_prompt": True},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is"}, {"type": "image"}, {"type": "text", "text": "it?"}]}],
     "add_generation_prompt": True},
    {"messages": msgs(HI, ("critic", "I object."), FINE)},
    {"messages": msgs(HI) + [{"role": "assistant", "tool_calls": [CALL]},
                             {"role": "ipython", "content": ["a", 1, None, 2.50, True]}], "builtin_tools": ["get_weather", "code_interpreter"]},
    {"messages": msgs(SYS), "custom_tools": [TOOL2]},
    {"messages": msgs(HI), "documents": [{"title": "First", "text": "line one\nline two is longer"}, {"title": "zwöi", "text": ""}]},
    {"messages": msgs(("user", "q\"uo'te \\ back\x01 \x7f\u200b"), ("assistant", "tab\there")), "tools": []},
    {"messages": [{"role": "tool", "content": "first", "tool_call_id": "123456789"}, {"role": "tool", "content": "second", "tool_call_id": "12"}]},
    {"messages": msgs(("user", "word " * 120 + "end"))},
    {"messages": msgs(HI), "date_string": "1 May 2031", "bos_token": None},
    {"messages": msgs(("user", "<tool_response>\nx\n</tool_response>"), ("assistant", "b"), ("user", "<tool_response>y</tool_response>"))},
    {"messages": msgs(("user", "a" * 4), ("assistant", "b"), ("user", "c d"), ("assistant", "e"), ("user", "f g h"), ("assistant", ""), ("user", "i"))},
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def templates(folder):
    for name in sorted(os.listdir(folder)):
        if name.endswith(".jinja"):
            with open(os.path.join(folder, name), encoding="utf-8", newline="") as f:
                yield name[:-6], f.read()


def check(tool, folder):
    from fuzz_templates import Ours
    ours, n, bad = Ours(tool), 0, 0
    for name, source in templates(folder):
        for i, variables in enumerate(CONVERSATIONS):
            v = {**TOKENS, **variables}
            want, got = render(source, v), ours.render(source, json.dumps(v))
            n += 1
            if want != got and not (want[0] == "fail" and got[0] == "model"):
                bad += 1
                print(f"{name} {i}\n  oracle {want}\n  ours   {got}")
    print(f"{n} cases, {bad} differ")
    return bad != 0


def main():
    if len(sys.argv) > 2 and sys.argv[1] == "--check":
        sys.exit(check(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else HERE))
    cases = []
    for name, source in templates(HERE):
        for i, variables in enumerate(CONVERSATIONS):
            kind, text = render(source, {**TOKENS, **variables})
            cases.append([name, i, kind] + ([text] if kind != "fail" else []))
    lines = ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases)
    conversations = ",\n".join(json.dumps(c, ensure_ascii=False) for c in CONVERSATIONS)
    with open(os.path.join(HERE, "cases.json"), "w", encoding="utf-8", newline="") as f:
        f.write(f'{{"conversations": [\n{conversations}\n],\n"cases": [\n{lines}\n]}}\n')
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
