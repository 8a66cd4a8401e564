"""The report on a module's systems: its numbers, its text and its picture."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from random_systems import Read, Recurrence, stack
from torch_mlir import ir

from parc import dialect
from parc.errors import CompileError
from parc.passes.schedule import ScheduleSystem
from parc.report import Number, Report, explain_module, schedule_comment

MATRIX = """
func.func @main(%T: index, %B: index, %x: tensor<?x?x8xf32>, %w: tensor<8x24xf32>) -> tensor<?x?x24xf32> {
  %s = "parc.system"(%T, %B) ({
    %p = "parc.unknown"() {name = "P", shape = affine_map<()[T, B] -> (T, B, 24)>} : () -> tensor<?x?x24xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = affine_map<(t)[T, B] -> (t)>} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %e = tensor.empty(%B) : tensor<?x24xf32>
      %c = linalg.matmul ins(%a, %w : tensor<?x8xf32>, tensor<8x24xf32>) outs(%e : tensor<?x24xf32>) -> tensor<?x24xf32>
      "parc.write"(%c, %p) {at = affine_map<(t)[T, B] -> (t)>} : (tensor<?x24xf32>, tensor<?x?x24xf32>) -> ()
    }) {name = "product", domain = affine_set<(t)[T, B] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T", "B"]} : (index, index) -> !parc.solution
  %P = "parc.array"(%s) {name = "P"} : (!parc.solution) -> tensor<?x?x24xf32>
  return %P : tensor<?x?x24xf32>
}
"""


def parse(text: str) -> ir.Module:
    context = ir.Context()
    dialect.load(context)
    return ir.Module.parse(text, context)


def report(system: Recurrence, sizes: dict[str, int] | None = None, **request: str | int) -> Report:
    module = parse(system.text())
    ScheduleSystem(**request).run(module)
    return explain_module(module, sizes)


def test_a_number_is_an_integer_with_a_formula() -> None:
    number = Number(131, "T + 3")
    assert number == 131
    assert f"{number}" == "T + 3 = 131"
    assert str(Number(4, "4")) == str(Number(4, "?")) == "4"


def test_a_stack() -> None:
    result = report(stack(4, products=True), {"T": 128}, strategy="wavefront", threads=2)
    assert (result.work, result.span, result.waves) == (512, 131, 131)
    assert (result.work.formula, result.span.formula, result.waves.formula) == ("4*T", "T + 3", "T + 3")
    assert result.steps == 2 * 131  # in each wave the products come before the cells
    (system,) = result.systems
    assert system.strategy == "wavefront"
    assert system.layers == tuple((f"product{i}", f"cell{i}") for i in range(4))
    assert system.needs[0] == "cell0[t] needs product0[t] and cell0[t - 1]"
    assert system.schedule["cell3"] == "cell3[t] -> (t + 3, 1)"


def test_the_text_says_what_the_waves_are_made_of() -> None:
    text = str(report(stack(3), {"T": 10}, strategy="wavefront"))
    assert "A system of 3 equations, numbers at T=10" in text
    assert "Work      3*T = 30 points, 0 multiply-adds" in text
    assert "Span      3*T = 30 sequential steps before, T + 2 = 12 waves after" in text
    assert "Waves     T + 2 = 12 (3 layers + 10 steps - 1)" in text
    assert "cell1[t] needs cell0[t] and cell1[t - 1]" in text
    assert "cell2[t] -> (t + 2)" in text
    assert "Why: wavefront was asked for" in text


def test_layers_in_opposite_directions() -> None:
    there = (Read("there", 1, 0, -1),)
    back = (Read("there", -1, 1, -1), Read("back", 1, 0, -1))
    result = report(Recurrence({"there": there, "back": back}), {"T": 9}, strategy="wavefront")
    assert result.waves.formula == "2*T"
    assert result.systems[0].needs[-1] == "back[t] needs there[-t + T - 1] and back[t - 1]"


def test_two_directions_at_once() -> None:
    one, other = (Read("one", 1, 0, -1),), (Read("other", 1, 0, -1),)
    result = report(Recurrence({"one": one, "other": other}), {"T": 9}, strategy="wavefront")
    assert (result.work, result.waves) == (18, 9)


def test_multiply_adds_are_a_formula_of_the_sizes() -> None:
    module = parse(MATRIX)
    ScheduleSystem().run(module)
    result = explain_module(module, {"T": 10, "B": 3})
    assert result.multiply_adds == 10 * 3 * 8 * 24
    assert set(result.multiply_adds.formula.split("*")) == {"192", "T", "B"}


def test_no_steps_are_no_waves() -> None:
    result = report(stack(3), {"T": 0}, strategy="wavefront")
    assert (result.work, result.span, result.waves, result.steps) == (0, 0, 0, 0)
    assert "There are no points" in result.systems[0].picture


def test_sizes_are_those_named_for_the_schedule() -> None:
    module = parse(stack(2).text())
    ScheduleSystem(strategy="wavefront", sizes="T=77").run(module)
    assert explain_module(module).waves == 78
    assert explain_module(module, {"T": 5}).waves == 6


def test_a_module_without_systems() -> None:
    result = explain_module(parse("func.func @main() { return }"))
    assert (result.systems, result.work, result.span) == ((), 0, 0)
    assert "no recurrence" in str(result)
    assert schedule_comment(parse("func.func @main() { return }")) == ""


def test_a_system_without_a_schedule() -> None:
    module = parse(stack(1).text())
    assert schedule_comment(module) == ""
    with pytest.raises(CompileError, match="cell0 has no schedule"):
        explain_module(module)


def test_the_comment_of_a_schedule() -> None:
    module = parse(stack(2).text())
    ScheduleSystem(strategy="wavefront", distribute="points", sizes="T=8").run(module)
    assert schedule_comment(module).splitlines() == [
        "// system 0: 2 equations, numbers at T=8",
        "//   strategy: wavefront, distribute: points",
        "//   work: 2*T = 16",
        "//   span: T + 1 = 9",
        "//   waves: T + 1 = 9",
        "//   steps: T + 1 = 9",
    ]


class Tags(HTMLParser):
    """Counts opened tags and checks that they are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "rect":
            assert self.open.pop() == tag


def test_the_page_has_a_box_for_every_point(tmp_path: Path) -> None:
    result = report(stack(3), {"T": 5}, strategy="wavefront")
    result.save(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.seen.count("rect") == 3 * 5
    assert "T + 2 = 7" in page
    waves = {int(n) for n in re.findall(r'text-anchor="middle">(\d+)</text></g>', page)}
    assert waves == set(range(7))
