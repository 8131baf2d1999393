"""Text for the tiny model that no one holds rights in: templates over small word lists, made here. Each function yields one
document: a string, or a list of (role, content) turns."""

PEOPLE = ("Anna Ben Clara David Emma Felix Grace Hugo Iris Jonas Karla Leon Maria Nils Olga Paul Rosa Simon Tara Victor Wanda "
          "Adam Alice Bruno Carol Dora Eric Frank Gina Henry Ida Jack Kate Lucas Mona Nora Oscar Peter Ruth Sara Tom").split()
FAMILY = ("Abel Baker Carter Duval Ebert Fischer Garcia Hansen Ivanov Jensen Keller Lopez Meyer Novak Olsen Peters Quinn Rossi "
          "Schmidt Turner Unger Vogel Weber Young Zimmer").split()
CITIES = "Berlin Paris London Rome Madrid Vienna Oslo Prague Lisbon Dublin Zurich Hamburg Lyon Milan Porto Geneva".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
THINGS = ("apple book lamp chair bottle key letter bell coat ring clock boat basket hat table window pencil cup drum kite "
          "map mirror spoon shoe violin").split()
COLOURS = "red blue green yellow black white brown grey silver golden".split()
ANIMALS = "dog cat horse bird fox rabbit owl bear duck goat mouse sheep".split()
PLACES = "garden house river forest market school station bridge tower harbour library kitchen".split()
MOODS = "happy sad tired proud quiet angry hungry curious afraid glad".split()
JOBS = "doctor teacher baker farmer nurse pilot lawyer painter writer engineer".split()
TOPICS = "the report|the budget|the contract|the meeting|the new office|the delivery|the invoice|the plan|the order".split("|")
NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
CAPITALS = {"France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Austria": "Vienna",
            "Norway": "Oslo", "Portugal": "Lisbon", "Ireland": "Dublin", "England": "London", "Poland": "Warsaw",
            "Greece": "Athens", "Japan": "Tokyo", "Egypt": "Cairo", "Russia": "Moscow", "Sweden": "Stockholm"}
SOUNDS = {"dog": "barks", "cat": "meows", "horse": "neighs", "bird": "sings", "owl": "hoots", "bear": "growls",
          "duck": "quacks", "goat": "bleats", "mouse": "squeaks", "sheep": "bleats"}
COLOUR_OF = {"grass": "green", "the sky": "blue", "snow": "white", "blood": "red", "coal": "black", "the sun": "yellow",
             "a lemon": "yellow", "the sea": "blue", "a tomato": "red", "chocolate": "brown"}
OPPOSITES = {"hot": "cold", "big": "small", "fast": "slow", "old": "young", "high": "low", "light": "dark", "full": "empty",
             "rich": "poor", "hard": "soft", "early": "late", "strong": "weak", "long": "short", "wet": "dry", "open": "closed"}
SYSTEM = ["You are a helpful assistant.", "You are a helpful assistant. Answer in one short sentence.",
          "You are a polite assistant for a small company."]


def a(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def email_address(r, name, family):
    return f"{name.lower()}.{family.lower()}@{r.choice(['mail', 'office', 'post', 'work'])}.example"


def phone(r):
    return f"+49 {r.randint(30, 99)} {r.randint(100, 999)} {r.randint(1000, 9999)}"


def story(r):
    name, friend = r.sample(PEOPLE, 2)
    girl = name in PEOPLE[0::2]
    he, his = ("she", "her") if girl else ("he", "his")
    pet, thing, place, other = r.choice(ANIMALS), r.choice(THINGS), *r.sample(PLACES, 2)
    colour = r.choice(COLOURS)
    out = [f"Once upon a time there was {a(r.choice(JOBS))} called {name}. {he.capitalize()} lived near the {place} with {his} {pet}."]
    middle = [
        f"One day {name} found {a(colour)} {thing} in the {place}. The {thing} was very old.",
        f"\"Whose {thing} is this?\" said {name}. \"I have never seen such {a(thing)} before.\"",
        f"The {pet} looked at the {thing} and was {r.choice(MOODS)}.",
        f"{name} took the {colour} {thing} and went to the {other}.",
        f"At the {other} {he} met {friend}. \"Good morning, {friend},\" said {name}. \"Good morning, {name},\" said {friend}.",
        f"It was a {r.choice(['cold', 'warm', 'long', 'dark', 'bright'])} day, and {name} was {r.choice(MOODS)}.",
        f"{friend} said that the {thing} belonged to the {r.choice(JOBS)} who lived by the {other}.",
    ]
    out += [middle[i] for i in sorted(r.sample(range(len(middle)), r.randint(3, 6)))]
    out.append(f"In the end {name} gave the {thing} to {friend}, and they were both {r.choice(['happy', 'glad', 'proud'])}.")
    out.append(f"{name} and the {pet} went home to the {place}.")
    return " ".join(out)


def email(r):
    name, family, to = r.choice(PEOPLE), r.choice(FAMILY), r.choice(PEOPLE)
    topic, day = r.choice(TOPICS), r.choice(DAYS)
    body = r.sample([
        f"thank you for your message about {topic}.",
        f"we need to talk about {topic} before {day}.",
        f"please send me {topic} by {day}, {r.randint(1, 28)} {r.choice(MONTHS)}.",
        f"I have read {topic} and I think that it is {r.choice(['ready', 'too long', 'very good', 'not complete'])}.",
        f"{r.choice(PEOPLE)} will be in {r.choice(CITIES)} on {day} and can bring {topic}.",
        f"the customer asked about {topic} again.",
    ], r.randint(1, 3))
    text = " ".join(s[0].upper() + s[1:] if i else s for i, s in enumerate(body))
    call = f" You can call me at {phone(r)}." if r.random() < 0.4 else ""
    return (f"From: {name} {family} <{email_address(r, name, family)}>\nTo: {to}\nSubject: {topic[0].upper() + topic[1:]}\n\n"
            f"Dear {to},\n\n{text}{call}\n\nBest regards,\n{name} {family}")


def record(r):
    name, family = r.choice(PEOPLE), r.choice(FAMILY)
    return {"id": r.randint(1000, 9999), "name": f"{name} {family}", "email": email_address(r, name, family),
            "age": r.randint(18, 90), "city": r.choice(CITIES), "job": r.choice(JOBS)}


def json_lines(rec, keys, indent=""):
    body = [f'{indent}  "{k}": ' + (str(rec[k]) if isinstance(rec[k], int) else f'"{rec[k]}"') for k in keys]
    return indent + "{\n" + ",\n".join(body) + "\n" + indent + "}"


def records(r):
    keys = r.sample(["id", "name", "email", "age", "city", "job"], r.randint(3, 6))
    rows = [record(r) for _ in range(r.randint(2, 5))]
    kind = r.randrange(3)
    if kind == 0:
        return "[\n" + ",\n".join(json_lines(x, keys, "  ") for x in rows) + "\n]"
    if kind == 1:
        return ",".join(keys) + "\n" + "\n".join(",".join(str(x[k]) for k in keys) for x in rows)
    return "\n\n".join("\n".join(f"{k.capitalize()}: {x[k]}" for k in keys) for x in rows)


def function(r):
    """(what it does, Python source, C source)"""
    op, word = r.choice([("+", "add"), ("-", "subtract"), ("*", "multiply")])
    x, y = r.choice([("a", "b"), ("x", "y"), ("first", "second")])
    thing = r.choice(THINGS)
    n = r.randint(2, 20)
    return r.choice([
        (f"{word}s two numbers", f"def {word}({x}, {y}):\n    return {x} {op} {y}",
         f"int {word}(int {x}, int {y}) {{\n    return {x} {op} {y};\n}}"),
        (f"prints the numbers from 1 to {n}", f"def print_numbers():\n    for i in range(1, {n + 1}):\n        print(i)",
         f"void print_numbers(void) {{\n    for (int i = 1; i <= {n}; i++) {{\n        printf(\"%d\\n\", i);\n    }}\n}}"),
        ("finds the largest number in a list",
         "def largest(values):\n    best = values[0]\n    for value in values:\n        if value > best:\n            best = value\n    return best",
         "int largest(const int *values, int n) {\n    int best = values[0];\n    for (int i = 1; i < n; i++) {\n"
         "        if (values[i] > best) {\n            best = values[i];\n        }\n    }\n    return best;\n}"),
        ("sums a list", "def total(values):\n    result = 0\n    for value in values:\n        result += value\n    return result",
         "int total(const int *values, int n) {\n    int result = 0;\n    for (int i = 0; i < n; i++) {\n"
         "        result += values[i];\n    }\n    return result;\n}"),
        (f"counts each {thing}", f"def count_{thing}s(items):\n    count = 0\n    for item in items:\n        if item == \"{thing}\":\n"
         f"            count += 1\n    return count",
         f"int count_{thing}s(const char **items, int n) {{\n    int count = 0;\n    for (int i = 0; i < n; i++) {{\n"
         f"        if (strcmp(items[i], \"{thing}\") == 0) {{\n            count++;\n        }}\n    }}\n    return count;\n}}"),
        (f"tells whether a number is larger than {n}", f"def is_large(value):\n    return value > {n}",
         f"bool is_large(int value) {{\n    return value > {n};\n}}"),
    ])


def code(r):
    which = r.choice((1, 2))
    picked = [function(r) for _ in range(r.randint(2, 4))]
    if which == 1:
        return "\n\n\n".join(f[1].replace(":\n", f':\n    """{f[0].capitalize()}."""\n', 1) for f in picked)
    return "#include <stdio.h>\n\n" + "\n\n".join(f"/* {f[0].capitalize()}. */\n{f[2]}" for f in picked)


def arithmetic(r):
    rows = []
    start = r.randint(1, 12)
    kind = r.randrange(3)
    for i in range(r.randint(5, 12)):
        x, y = start + (i if kind == 0 else r.randint(0, 12)), r.randint(1, 12) if kind else start
        op = r.choice("+-*") if kind == 2 else "+*"[kind]
        x, y = (max(x, y), min(x, y)) if op == "-" else (x, y)
        rows.append(f"{x} {op} {y} = {x + y if op == '+' else x * y if op == '*' else x - y}")
    return "\n".join(rows)


def listing(r):
    kind = r.randrange(4)
    if kind == 0:
        words, title = r.sample(THINGS, r.randint(3, 8)), "Shopping list:"
        return title + "\n" + "\n".join(f"- {r.randint(1, 9)} {w}s" for w in words)
    if kind == 1:
        return "Counting: " + ", ".join(NUMBERS[1:r.randint(6, 12) + 1]) + "."
    if kind == 2:
        day = r.randrange(7)
        return "Plan of the week:\n" + "\n".join(f"{DAYS[(day + i) % 7]}: {r.choice(['meet', 'call', 'visit', 'write to'])} "
                                                  f"{r.choice(PEOPLE)}" for i in range(r.randint(3, 7)))
    first = r.randint(1, 20)
    return "\n".join(f"{first + i}. The {r.choice(COLOURS)} {w} is in the {r.choice(PLACES)}."
                     for i, w in enumerate(r.sample(THINGS, r.randint(4, 8))))


def log(r):
    hour, minute, month, day = r.randint(0, 22), r.randint(0, 39), r.randint(1, 12), r.randint(1, 28)
    rows = []
    for _ in range(r.randint(5, 10)):
        minute += r.randint(1, 2)
        user = r.choice(PEOPLE).lower()
        what = r.choice([f"INFO user {user} logged in", f"INFO user {user} logged out", f"WARN disk is {r.randint(70, 99)}% full",
                         f"INFO request took {r.randint(2, 900)} ms", f"ERROR cannot open file {r.choice(THINGS)}.txt"])
        rows.append(f"2024-{month:02}-{day:02} {hour:02}:{minute:02}:{r.randint(0, 59):02} {what}")
    return "\n".join(rows)


# Questions whose answer stands in the question: what a model of this size learns last.
COPYING = (0, 0, 4, 9, 9, 9, 10, 11, 11, 13, 13, 15)


def question(r, copying=False):
    """One (question, answer)."""
    kind = r.choice(COPYING) if copying else r.randrange(16)
    if kind == 0:
        c = r.choice(list(CAPITALS))
        return f"What is the capital of {c}?", f"The capital of {c} is {CAPITALS[c]}."
    if kind == 1:
        x, y = r.randint(0, 20), r.randint(0, 20)
        return f"What is {x} + {y}?", f"{x} + {y} = {x + y}."
    if kind == 2:
        x, y = r.randint(0, 12), r.randint(0, 12)
        return f"What is {x} * {y}?", f"{x} * {y} = {x * y}."
    if kind == 3:
        k = r.choice(list(COLOUR_OF))
        return f"What colour is {k}?", f"{k[0].upper() + k[1:]} is {COLOUR_OF[k]}."
    if kind == 4:
        k = r.choice(list(OPPOSITES))
        return f"What is the opposite of {k}?", f"The opposite of {k} is {OPPOSITES[k]}."
    if kind == 5:
        k = r.choice(list(SOUNDS))
        return f"What does {a(k)} do?", f"{a(k).capitalize()} {SOUNDS[k]}."
    if kind == 6:
        d = r.randrange(7)
        return f"Which day comes after {DAYS[d]}?", f"{DAYS[(d + 1) % 7]} comes after {DAYS[d]}."
    if kind == 7:
        m = r.randrange(12)
        return f"Which month comes after {MONTHS[m]}?", f"{MONTHS[(m + 1) % 12]} comes after {MONTHS[m]}."
    if kind == 8:
        what, py, c = function(r)
        lang, src = r.choice((("Python", py), ("C", c)))
        return (f"Write a {lang} function that {what}.",
                f"Here is a {lang} function that {what}:\n\n```{lang.lower()}\n{src}\n```")
    if kind == 9:
        rec = record(r)
        keys = ["name", "age", "city", "job"]
        return (f"Turn this into JSON: {rec['name']} is {rec['age']} years old, lives in {rec['city']} and works as {a(rec['job'])}.",
                json_lines(rec, keys))
    if kind == 10:
        name, topic, day = r.choice(PEOPLE), r.choice(TOPICS), r.choice(DAYS)
        return (f"Write a short email to {name} about {topic}.",
                f"Subject: {topic[0].upper() + topic[1:]}\n\nDear {name},\n\nI would like to talk about {topic}. "
                f"Could we meet on {day}?\n\nBest regards")
    if kind == 11:
        words = r.sample(THINGS, r.randint(3, 6))
        return f"Repeat these words: {' '.join(words)}", " ".join(words)
    if kind == 12:
        n, words = r.randint(3, 5), None
        name, pool = r.choice([("animals", ANIMALS), ("colours", COLOURS), ("cities", CITIES), ("jobs", JOBS)])
        words = r.sample(pool, n)
        return (f"Give me a list of {NUMBERS[n]} {name}.", f"Here are {NUMBERS[n]} {name}:\n" +
                "\n".join(f"{i + 1}. {w.capitalize()}" for i, w in enumerate(words)))
    if kind == 13:
        name, place, thing = r.choice(PEOPLE), r.choice(PLACES), r.choice(THINGS)
        return (f"{name} put the {thing} in the {place}. Where is the {thing}?", f"The {thing} is in the {place}.")
    if kind == 14:
        return r.choice([("Hello!", "Hello! How can I help you?"), ("Hi", "Hello! How can I help you?"),
                         ("Thank you.", "You are welcome."), ("Good morning.", "Good morning! How can I help you?"),
                         ("Who are you?", "I am a tiny language model. I can answer small questions."),
                         ("What can you do?", "I can answer small questions, write short letters and tell short stories.")])
    return f"Tell me a short story about {a(r.choice(ANIMALS))}.", story(r)


def chat(r, copying=False):
    turns = [("system", r.choice(SYSTEM))] if r.random() < 0.3 else []
    for _ in range(r.choice((1, 1, 1, 2, 2, 3, 4))):
        q, answer = question(r, copying)
        turns += [("user", q), ("assistant", answer)]
    return turns


KINDS = ((chat, 8), (story, 3), (email, 2), (records, 2), (code, 2), (arithmetic, 1), (listing, 1), (log, 1))


def document(r):
    """Any kind, as the first stage of training mixes them."""
    return r.choices([k for k, _ in KINDS], [w for _, w in KINDS])[0](r)


def copying_document(r):
    """The second stage: mostly conversations in which the answer is found in the question."""
    return chat(r, True) if r.random() < 0.7 else document(r)
