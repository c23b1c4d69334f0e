"""The dashboards: of the right types, complete, and laid out without an overlap."""

import itertools
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

import places

DASHBOARDS = places.dashboards()
SCHEMA = Path(os.environ.get("E2E_GRAFANA_SCHEMA", places.ROOT / ".cache/grafana-schema"))

# TypeScript does not take "stat" for a string enum, but JSON has nothing else: enums become their values. Options
# and custom fields are of any form in `Dashboard`; each kind of panel has its own types for them.
TYPES = """
import type { Dashboard } from '@grafana/schema';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as bargauge from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as timeseries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
type Json<T> = T extends string ? `${T}` : T extends object ? { [K in keyof T]: Json<T[K]> } : T;
type Query = { refId: string; datasource: { type: 'prometheus'; uid: '${datasource}' }; expr: string;
  legendFormat?: string; instant?: true; range?: true; format?: 'table' | 'heatmap' };
"""
WITH_FIELDS = {"timeseries", "table"}


def typed(dashboard):
    """TypeScript that compiles only where the dashboard is right."""
    lines = [TYPES, f"export const dashboard: Json<Dashboard> = {json.dumps(dashboard)};"]
    for panel in places.panels(dashboard):
        kind, number = panel["type"], panel["id"]
        lines.append(f"export const options{number}: Json<{kind}.Options> = {json.dumps(panel['options'])};")
        lines.append(f"export const targets{number}: Query[] = {json.dumps(panel['targets'])};")
        custom = panel["fieldConfig"]["defaults"].get("custom")
        if kind in WITH_FIELDS:
            lines.append(f"export const custom{number}: Json<{kind}.FieldConfig> = {json.dumps(custom)};")
        else:
            assert custom is None, f"{panel['title']}: a {kind} has no custom fields"
    return "\n".join(lines) + "\n"


def compile_types(dashboard, folder):
    """What tsc complains about."""
    modules = SCHEMA / "node_modules"
    assert modules.is_dir(), "the types are not there: run `make monitoring`, which fetches them"
    (folder / "dashboard.ts").write_text(typed(dashboard))
    options = {"strict": True, "noEmit": True, "module": "esnext", "moduleResolution": "bundler", "target": "es2022",
               "skipLibCheck": True, "types": []}
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "files": ["dashboard.ts"]}))
    link = folder / "node_modules"
    if not link.exists():
        link.symlink_to(modules)
    compiler = ["node", str(modules / "typescript/bin/tsc"), "-p", str(folder)]
    return subprocess.run(compiler, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", DASHBOARDS)
def test_types_are_those_of_grafana(name, tmp_path):
    assert compile_types(DASHBOARDS[name], tmp_path) == ""


def spoilt(spoil):
    copy = json.loads(json.dumps(DASHBOARDS["on-call"]))
    spoil(copy)
    return copy


@pytest.mark.parametrize(
    "spoil",
    [
        lambda board: board.update(colour="blue"),
        lambda board: board["panels"][1].update(gridPos={"x": 0, "y": 0, "w": "12", "h": 8}),
        lambda board: next(p for p in board["panels"] if p["type"] == "stat")["options"].update(textMode="loud"),
        lambda board: next(p for p in board["panels"] if p["type"] == "timeseries")["options"].pop("legend"),
        lambda board: board["panels"][1]["targets"][0].pop("expr"),
    ],
    ids=["unknown field", "number as text", "unknown option", "option missing", "no query"],
)
def test_wrong_types_are_noticed(spoil, tmp_path):
    assert "error TS" in compile_types(spoilt(spoil), tmp_path)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_can_be_provisioned(name):
    board = DASHBOARDS[name]
    assert board["uid"] == f"offramp-{name}"
    assert "id" not in board and "__inputs" not in board, "an export for one server, not a file to provision"
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert list(variables) == ["datasource", "namespace", "job", "cluster", "trigger"]
    assert variables["datasource"]["type"] == "datasource"
    source = {"type": "prometheus", "uid": "${datasource}"}
    for holder in [*list(variables.values())[1:], *places.panels(board)]:
        assert holder["datasource"] == source, holder.get("title", holder.get("name"))
    links = [link["url"] for link in board["links"]]
    others = [other["uid"] for other in DASHBOARDS.values() if other is not board]
    assert all(any(url.startswith(f"/d/{uid}?") for url in links) for uid in others)
    assert places.RUNBOOK_URL in links


@pytest.mark.parametrize(
    "panel", [panel for board in DASHBOARDS.values() for panel in places.panels(board)], ids=lambda panel: panel["title"]
)
def test_a_panel_explains_itself(panel):
    assert len(panel["description"]) > 25 and panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    if panel["type"] in ("stat", "bargauge"):
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    (link,) = panel["links"]
    page, _, anchor = link["url"].partition("#")
    assert page == places.RUNBOOK_URL and anchor in places.anchors(places.RUNBOOK.read_text())
    assert [target["refId"] for target in panel["targets"]] == list("ABCDEF")[: len(panel["targets"])]
    for target in panel["targets"]:
        assert target.get("instant") or target.get("range")
        for variable in ("$namespace", "$job"):
            assert variable in target["expr"], "without it two installations are mixed"


def test_what_was_late_is_red_whoever_names_the_bar():
    """Bars are named by their bucket, which is `0` in Prometheus 2 and `0.0` in Prometheus 3."""
    titles = {panel["title"]: panel for panel in places.panels(DASHBOARDS["on-call"])}
    (override,) = titles["Time left when removals finished"]["fieldConfig"]["overrides"]
    assert override["properties"] == [{"id": "color", "value": {"mode": "fixed", "fixedColor": "red"}}]
    assert override["matcher"]["id"] == "byRegexp"
    bars = ["0", "0.0", "0.5", "5", "5.0", "10", "10.0", "300", "+Inf"]
    assert [bar for bar in bars if re.search(override["matcher"]["options"], bar)] == ["0", "0.0"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_do_not_overlap_and_leave_no_hole(name):
    board = DASHBOARDS[name]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    titles = [panel["title"] for panel in board["panels"]]
    assert len(titles) == len(set(titles))
    taken = {}
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for cell in itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, f"{panel['title']} lies over {taken[cell]}"
            taken[cell] = panel["title"]
    height = max(y for _, y in taken) + 1
    assert len(taken) == 24 * height, "a hole: Grafana moves the panels below it up"
    assert board["panels"][0]["type"] == "row"
    order = [(panel["gridPos"]["y"], panel["gridPos"]["x"]) for panel in board["panels"]]
    assert order == sorted(order), "panels are listed in reading order"
