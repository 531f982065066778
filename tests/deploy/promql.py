"""What a PromQL expression asks for: metrics, and the labels of them that it names."""

import re
from dataclasses import dataclass, field
from typing import Final

import promql_parser
from promql_parser import AggregateExpr, BinaryExpr, VectorSelector

from benchmarks.panels import fill

_OF_LEGENDS: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass
class Asked:
    """What an expression names.

    Attributes:
        matched: labels in the braces after each metric.
        grouped: labels of `by`, `without`, `on`, `ignoring`, `group_left`.
    """

    matched: dict[str, set[str]] = field(default_factory=dict)
    grouped: set[str] = field(default_factory=set)


def asked_by(expr: str) -> Asked:
    """Parse an expression, Grafana's variables filled in.

    Raises:
        ValueError: it is no PromQL.
    """
    asked = Asked()

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, VectorSelector):
            assert node.name is not None, "a metric is named before its braces"
            labels = {matcher.name for matcher in node.matchers.matchers}
            asked.matched.setdefault(node.name, set()).update(labels)
        elif isinstance(node, AggregateExpr) and node.modifier is not None:
            asked.grouped.update(node.modifier.labels)
        elif isinstance(node, BinaryExpr) and node.modifier is not None:
            if node.modifier.matching is not None:
                asked.grouped.update(node.modifier.matching.labels)
            asked.grouped.update(node.modifier.group_labels or ())

    promql_parser.walk(promql_parser.parse(fill(expr)), pre_visit=visit)
    return asked


def labels_of_legend(legend: str) -> set[str]:
    return set(_OF_LEGENDS.findall(legend))
