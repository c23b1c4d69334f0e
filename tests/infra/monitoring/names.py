"""Which metrics and labels there are, and which are used."""

import re

import promql_parser
from prometheus_client.parser import text_string_to_metric_families

# What Prometheus and our rules add to what a worker serves.
ADDED_LABELS = {"job", "instance", "namespace"}
OF_PROMETHEUS = {"ALERTS": {"alertname", "alertstate", "severity"}, "up": set()}


class Scrape:
    """The metrics of a worker, as its page shows them."""

    def __init__(self, text):
        self.families = {}
        self.values = {}
        for family in text_string_to_metric_families(text):
            # The parser takes the ending off a counter's name; people write it.
            name = family.name + ("_total" if family.type == "counter" else "")
            self.families[name] = family
            for sample in family.samples:
                labels = self.values.setdefault(sample.name, {})
                for label, value in sample.labels.items():
                    labels.setdefault(label, set()).add(value)

    def documented_names(self):
        """The names that a person needs to know: a histogram is one, not three."""
        return set(self.families)

    def knows(self, name):
        return name in self.values

    def labels(self, name):
        return self.values[name]


def selectors(expression):
    """(metric, its matchers, labels that an aggregation around it groups by, its text) of each metric of a query."""
    found = []

    def walk(node, groupings):
        match node:
            case promql_parser.VectorSelector():
                matchers = [(m.name, m.op, m.value) for m in node.matchers.matchers]
                found.append((node.name, matchers, set(groupings), node.prettify()))
            case promql_parser.MatrixSelector():
                walk(node.vector_selector, groupings)
            case promql_parser.SubqueryExpr() | promql_parser.ParenExpr() | promql_parser.UnaryExpr():
                walk(node.expr, groupings)
            case promql_parser.AggregateExpr():
                modifier = node.modifier
                by = modifier.labels if modifier and "by" in str(modifier.type).lower() else []
                walk(node.expr, groupings | set(by))
            case promql_parser.Call():
                for argument in node.args:
                    walk(argument, groupings)
            case promql_parser.BinaryExpr():
                walk(node.lhs, groupings)
                walk(node.rhs, groupings)
            case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
                pass
            case _:
                raise AssertionError(f"a kind of expression that this test does not know: {type(node)}")

    walk(promql_parser.parse(expression), set())
    return found


def complaints(expression, scrape, recordings):
    """What is wrong with the names in a query: metrics, labels and label values that do not exist."""
    wrong = []
    for metric, matchers, grouped, _ in selectors(expression):
        used = {name for name, _, _ in matchers} | grouped
        if metric in OF_PROMETHEUS:
            # An alert has the labels that its rule leaves, and whether a target is up only what all have.
            wrong += [f"{metric} has no label {label}" for label in used - OF_PROMETHEUS[metric] - ADDED_LABELS]
            continue
        if metric in recordings:
            left = recorded_labels(recordings[metric]["expr"])
            wrong += [f"{metric} has no label {label}" for label in used - left - ADDED_LABELS]
            continue
        if not scrape.knows(metric):
            wrong.append(f"the worker has no metric {metric}")
            continue
        known = scrape.labels(metric)
        wrong += [f"{metric} has no label {label}" for label in used - set(known) - ADDED_LABELS]
        for label, operator, value in matchers:
            if label == "le" and re.fullmatch(r"\d+", value):
                wrong.append(f"{metric}: le={value!r} is le='{value}.0' in Prometheus 3: match both")
            if label not in known:
                continue
            pattern = value if "Re" in str(operator) else re.escape(value)
            if not any(re.fullmatch(pattern, candidate) for candidate in known[label]):
                wrong.append(f"{metric} never has {label}={value!r}")
            if "Re" in str(operator):
                alternatives = [one for one in value.split("|") if re.fullmatch(r"\w+", one)]
                never = [one for one in alternatives if one not in known[label]]
                wrong += [f"{metric} never has {label}={one!r}" for one in never]
    return wrong


def recorded_labels(expression):
    """The labels of a recorded series: all our rules end in an aggregation."""
    return set.union(set(), *(grouped for _, _, grouped, _ in selectors(expression))) - {"le"}


def labels_left(expression, scrape, recordings):
    """The labels that an alert has: those of the left side of its expression."""

    def walk(node):
        match node:
            case promql_parser.VectorSelector():
                if node.name in recordings:
                    return recorded_labels(recordings[node.name]["expr"])
                return set(scrape.labels(node.name)) | ADDED_LABELS
            case promql_parser.MatrixSelector():
                return walk(node.vector_selector)
            case promql_parser.ParenExpr():
                return walk(node.expr)
            case promql_parser.AggregateExpr():
                return set(node.modifier.labels) if node.modifier else set()
            case promql_parser.Call() if node.func.name == "absent":
                return set()
            case promql_parser.Call():
                return walk(node.args[-1])
            case promql_parser.BinaryExpr():
                return walk(node.lhs)
        raise AssertionError(f"a kind of expression that this test does not know: {type(node)}")

    return walk(promql_parser.parse(expression))


def labels_of_template(text):
    return set(re.findall(r"\$labels\.(\w+)", text))


def metrics_of_table(markdown):
    """The names in the first column of markdown tables, for documents that list metrics: `offramp_x`, and
    `offramp_x{label}` counts as `offramp_x`."""
    cells = re.findall(r"^\|\s*`((?:offramp|process)_[a-z_]+)(?:\{[^`]*\})?`\s*\|", markdown, re.MULTILINE)
    return set(cells)


def metrics_of_text(markdown):
    """Every name that looks like one of our metrics, anywhere in a document."""
    return set(re.findall(r"\b(?:offramp|process)_[a-z_]+[a-z]\b", markdown))
