"""What else LesaNet's tables could show: which part closes its lead over the plain CNN, what expansion at test adds.

LesaNet differs from the plain multilabel CNN by four parts at once, and WARP and the older embedding from it by label
expansion beside their losses. The controls are the CNN with one part alone. And the predictions of every method are
expanded at test, also those of methods that did not learn from expanded labels (LesaNet Sec. 4.2 says "in both training
and inference", and the published code does it for all): the second table is what that is worth.
"""

import numpy as np
import pandas as pd

from lensnb.evaluation.froc import interval
from lensnb.evaluation.lesanet_tables import NAMES, SETS
from lensnb.evaluation.markdown import markdown
from lensnb.lesanet.methods import CONTROLS, METHODS
from lensnb.lesanet.metrics import METRICS, Result

GAPS = ("auc", "f1")  # the measures of the controls
DECIDED = METRICS[1:]  # what depends on which labels are predicted; the AUC does not


def controls(results: dict[str, dict[str, Result]]) -> pd.DataFrame:
    """How much of LesaNet's lead over the CNN each part closes alone, with paired 95 % intervals over patients.

    results: by method ("cnn", CONTROLS, "lesanet") and test set, on the same draws. Columns: set, measure, method,
    title, value, gain (value minus the CNN's), low, high, share (gain over LesaNet's gain), share_low, share_high.
    There is a share only where LesaNet's own gain is above 0 with all of its interval. The parts act on one another,
    so that shares need not add up to 1. One training each: the intervals say nothing of another one.
    """
    lines = []
    for test in (test for test in SETS.values() if test in results["lesanet"]):
        for measure in GAPS:
            base = results["cnn"][test].with_samples(measure)
            lead = results["lesanet"][test].with_samples(measure) - base
            certain = interval(lead[1:])[0] > 0
            for method in (*CONTROLS, "lesanet"):
                own = results[method][test].with_samples(measure)
                low, high = interval((own - base)[1:])
                line = {"set": test, "measure": measure, "method": method, "title": METHODS[method].title}
                line |= {"value": own[0], "gain": own[0] - base[0], "low": low, "high": high}
                share = _ratio(own - base, lead) if certain else np.full(2, np.nan)
                bounds = interval(share[1:]) if certain else (np.nan, np.nan)
                lines.append(line | {"share": share[0], "share_low": bounds[0], "share_high": bounds[1]})
    return pd.DataFrame(lines)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full_like(below, np.nan), where=below != 0)


def controls_markdown(table: pd.DataFrame) -> str:
    """The controls as Markdown: a line for each method; gains in points, and what share of LesaNet's gain that is."""
    lines = []
    for title, own in table.groupby("title", sort=False):
        cells = {f"{row['set']} {NAMES[row['measure']]}": _gain(row) for row in own.to_dict("records")}
        lines.append({"method": title} | cells)
    return markdown(pd.DataFrame(lines))


def _gain(row: dict) -> str:
    share = ""
    if not np.isnan(row["share"]):
        share = f" = {row['share']:.0%} [{100 * row['share_low']:.0f}, {100 * row['share_high']:.0f}]"
    return f"{_points(row['gain'], row['low'], row['high'])}{share}"


def _points(value: float, low: float, high: float) -> str:
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def expansion_at_test(expanded: dict[str, dict[str, Result]], plain: dict[str, dict[str, Result]]) -> pd.DataFrame:
    """What the parents of predicted labels add at test, with paired 95 % intervals over patients.

    expanded, plain: the same runs by method and test set, scored with these parents and without them
    (`study.score_run`), each label's threshold being the same. Columns: method, title, set, measure (precision, recall,
    f1), expanded, plain, difference (expanded minus plain), low, high.
    """
    lines = []
    for method, of_sets in plain.items():
        for test, without in of_sets.items():
            for measure in DECIDED:
                both = [one.with_samples(measure) for one in (expanded[method][test], without)]
                low, high = interval((both[0] - both[1])[1:])
                line = {"method": method, "title": METHODS[method].title, "set": test, "measure": measure}
                line |= {"expanded": both[0][0], "plain": both[1][0], "difference": both[0][0] - both[1][0]}
                lines.append(line | {"low": low, "high": high})
    return pd.DataFrame(lines)


def expansion_markdown(table: pd.DataFrame) -> str:
    """The table of `expansion_at_test` as Markdown in percent."""
    lines = []
    for row in table.to_dict("records"):
        line = {"method": row["title"], "test set": row["set"], "measure": NAMES[row["measure"]]}
        line |= {name: f"{100 * row[name]:.1f}" for name in ("expanded", "plain")}
        lines.append(line | {"difference": _points(row["difference"], row["low"], row["high"])})
    return markdown(pd.DataFrame(lines))
