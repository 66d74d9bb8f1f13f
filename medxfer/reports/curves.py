"""The curves of training, as figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..evaluation.figures import FigureData
from ..evaluation.scores import meaning_of


def history_figures(history: Sequence[Mapping[str, str]], key_metric: str) -> list[FigureData]:
    """Losses and scores over the epochs of all phases, each phase marked."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    losses = [name for name in columns if name.endswith("_loss")]
    scores = [name for name in columns if name.startswith("val_") and name not in losses]
    starts = [
        number
        for number, row in enumerate(history)
        if number == 0 or row["phase"] != history[number - 1]["phase"]
    ]
    marks = [{"x": number + 0.5, "name": history[number]["phase"]} for number in starts]
    best = [number for number, row in enumerate(history) if row.get("best") in ("1", "True")][-1:]
    figures = []
    for title, names in (("Loss", losses), (meaning_of(key_metric).title + " on val", scores)):
        series = [
            {
                "name": name.replace("_loss", "")
                if names is losses
                else meaning_of(name.removeprefix("val_")).title,
                "x": list(range(1, len(history) + 1)),
                "y": [_number(row.get(name)) for row in history],
            }
            for name in names
        ]
        if any(value is not None for one in series for value in one["y"]):
            points = [{"x": n + 1, "y": _number(history[n].get(names[0])), "name": "kept"} for n in best]
            data = {"x": "Epoch", "y": title, "series": series, "marks": marks, "dots": True, "whole": True}
            data |= {"points": points} if names is scores else {}
            figures.append(FigureData(kind="lines", title=f"{title} over epochs", data=data))
    return figures


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
