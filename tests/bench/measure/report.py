"""What was measured, as Markdown and as JSON."""


class Report:
    def __init__(self, machine):
        self.machine = machine
        self.tables = []
        self.figures = []
        self.notes = []
        self.raw = {}

    def figure(self, key, what, value, unit, target=None, note=None):
        """One figure. A target is (`"<="` or `">="`, number)."""
        met = None
        if target:
            sign, bound = target
            met = value <= bound if sign == "<=" else value >= bound
        self.figures.append((what, value, unit, target, met))
        self.raw[key] = {"value": value, "unit": unit, "target": target and " ".join(map(str, target)), "met": met}
        if note:
            self.raw[key]["note"] = note

    def table(self, key, head, rows, raw):
        self.tables.append((head, rows))
        self.raw[key] = raw

    def note(self, text):
        self.notes.append(text)

    def skip(self, section, reason):
        self.note(f"{section}: left out: {reason}")

    def fail(self, section, problem):
        self.note(f"{section}: FAILED: {problem}")

    def json(self):
        return {"machine": self.machine, "figures": self.raw, "notes": self.notes}

    def text(self):
        machine = self.machine
        parts = [
            f"{machine['time'][:10]}, {machine['cpus']} CPUs ({machine['architecture']}), Linux {machine['kernel']}, "
            f"load {machine['load']:.1f} at the start"
        ]
        parts += [markdown(head, rows) for head, rows in self.tables]
        if self.figures:
            words = {True: "met", False: "**missed**", None: ""}
            signs = {"<=": "≤", ">=": "≥"}
            rows = []
            for what, value, unit, target, met in self.figures:
                wanted = f"{signs[target[0]]} {number(target[1])} {unit}" if target else ""
                rows.append([what, f"{number(value)} {unit}", wanted, words[met]])
            parts.append(markdown(["", "measured", "target", ""], rows))
        parts += [f"- {note}" for note in self.notes]
        return "\n\n".join(parts)


def number(value):
    """Three digits that count."""
    if isinstance(value, int) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def markdown(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
