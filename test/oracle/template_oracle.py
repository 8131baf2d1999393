"""What transformers renders: the oracle for chat templates. Needs transformers and jinja2."""
import datetime

from jinja2.exceptions import TemplateError
from transformers.utils import chat_template_utils as ctu

DATE = "26 Jul 2024"


class _FixedDate(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


ctu.datetime = _FixedDate


def render(template, variables):
    """("ok", text), ("usage", message of raise_exception) or ("fail", what). variables: as the C side's extra_json."""
    v = dict(variables)
    v.setdefault("date_string", DATE)
    messages = v.pop("messages", [])
    tools = v.pop("tools", None)
    documents = v.pop("documents", None)
    try:
        text = ctu.render_jinja_template(
            [messages], tools=tools, documents=documents, chat_template=template,
            add_generation_prompt=v.pop("add_generation_prompt", False), **v)
        text = text[0]
        if isinstance(text, list):
            text = text[0]
        text.encode("utf-8")
        return "ok", text
    except TemplateError as e:
        if type(e) is TemplateError:
            return "usage", str(e)
        return "fail", f"{type(e).__name__}: {e}"
    except Exception as e:  # whatever Python raises for a wrong type, a missing key, ...
        return "fail", f"{type(e).__name__}: {e}"
