"""The report as one HTML page: nothing is loaded from elsewhere, no script runs, every word is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from neuropil.report.data import Decoder, DecoderScores, ModelScores, ReportData
from neuropil.report.features import features_part
from neuropil.report.gallery import errors_part, sections_part
from neuropil.report.markup import details, duration, facts, missing, percent, plain, text, toml
from neuropil.report.resources import resources_part
from neuropil.report.scores import DEFINITIONS, curves_part, scores_part, training_part
from neuropil.report.style import CSS
from neuropil.report.sweeps import sweeps_part

PARTS = (
    ("scores", "Scores"),
    ("curves", "Curves"),
    ("sections", "Sections"),
    ("errors", "Worst errors"),
    ("features", "Feature maps"),
    ("tuning", "Tuning"),
    ("training", "Training"),
    ("resources", "Time and memory"),
    ("definitions", "Definitions"),
    ("provenance", "Provenance"),
)
# Makes the promise checkable: a browser refuses to load or run anything from outside the page.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def render(data: ReportData) -> str:
    """Return the whole page as one string of HTML; the same data give the same page.

    Parameters
    ----------
    data : ReportData
        From `neuropil.report.collect.collect_run`, or made in Python. Parts that are empty become one line that says
        how to get them.

    Returns
    -------
    str
        A complete HTML document, UTF-8 when written, with pictures as PNG data URIs and charts as inline SVG.

    Examples
    --------
    >>> page = render(ReportData(title="An <empty> run", run="runs/x"))
    >>> page.startswith("<!doctype html>"), "An &lt;empty&gt; run" in page
    (True, True)
    """
    content = {
        "scores": scores_part(data),
        "curves": curves_part(data),
        "sections": sections_part(data),
        "errors": errors_part(data),
        "features": features_part(data),
        "tuning": sweeps_part(data.sweeps),
        "training": training_part(data),
        "resources": resources_part(data),
        "definitions": _definitions(data),
        "provenance": _provenance(data),
    }
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title in PARTS)
    body = "".join(f'<section id="{key}"><h2>{title}</h2>{content[key]}</section>' for key, title in PARTS)
    return document(
        data.title,
        f'{_header(data)}<nav aria-label="Parts"><div>{links}</div></nav><main>{body}</main>{_footer(data)}',
    )


def document(title: str, body: str) -> str:
    """Return a complete HTML document around a body, which is HTML already; the title is not.

    >>> document("a < b", "<p>c</p>").endswith("<body><p>c</p></body></html>\\n")
    True
    """
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<title>{text(title)}</title><link rel="icon" href="data:,"><style>{CSS}</style></head>'
        f"<body>{body}</body></html>\n"
    )


def headline(data: ReportData) -> str:
    """Return the result in one or two sentences: the best model against the baseline; empty if nothing was scored.

    >>> from neuropil.report.data import ModelScores
    >>> best = ModelScores("VD2D", decoders={"watershed": DecoderScores(f=0.95)})
    >>> headline(ReportData("t", "r", models=(best,)))
    'VD2D reaches Rand F 0.9500 (watershed).'
    """
    trained = [one for one in data.models if not one.baseline and one.decoders]
    baselines = [one for one in data.models if one.baseline]
    if not trained:
        return ""
    best = max(trained, key=lambda one: one.best_f or 0.0)
    decoder, scores = _best_decoder(best)
    words = f"{best.model} reaches Rand F {scores.f:.4f} ({decoder})"
    if best.pixel_error is not None:
        words += f" and a pixel error of {percent(best.pixel_error.best)}"
    words += "."
    if baselines and baselines[0].decoders:
        other = baselines[0]
        words += f" The baseline {other.model} reaches {_best_decoder(other)[1].f:.4f}"
        if other.pixel_error is not None:
            words += f" and {percent(other.pixel_error.best)}"
        words += "."
    return words


def _best_decoder(model: ModelScores) -> tuple[Decoder, DecoderScores]:
    return max(model.decoders.items(), key=lambda item: item[1].f)


def _header(data: ReportData) -> str:
    notes = "".join(f'<p class="note">{text(note)}</p>' for note in data.notes)
    sentence = headline(data)
    return (
        f'<header><h1>{text(data.title)}</h1><p class="run">run folder <code>{text(data.run)}</code></p>'
        + (f'<p class="headline">{text(sentence)}</p>' if sentence else "")
        + notes
        + _tiles(data)
        + facts(data.facts)
        + "</header>"
    )


def _tiles(data: ReportData) -> str:
    trained = [one for one in data.models if not one.baseline]
    tiles = []
    for decoder in get_args(Decoder):
        scored = [(one.decoders[decoder].f, one.model) for one in trained if decoder in one.decoders]
        if scored:
            f, model = max(scored)
            what = "best Rand F" if decoder == "segmentation" else f"best Rand F by {decoder}"
            tiles.append((f"{f:.4f}", what, model))
    errors = [(one.pixel_error.best, one.model) for one in trained if one.pixel_error is not None]
    if errors:
        tiles.append((percent(min(errors)[0]), "best pixel error", min(errors)[1]))
    seconds = [log.seconds for log in data.training if log.seconds is not None]
    if seconds:
        tiles.append((duration(sum(seconds)), "training", ", ".join(log.network for log in data.training)))
    cells = "".join(
        f'<div class="tile"><b>{text(value)}</b><span>{text(what)}</span><span>{text(who)}</span></div>'
        for value, what, who in tiles
    )
    return f'<div class="tiles">{cells}</div>' if cells else ""


def _definitions(data: ReportData) -> str:
    """Return what each score means, and what the evaluations state of themselves."""
    stated = {key: value for model in data.models for key, value in model.definitions.items()}
    return facts(DEFINITIONS) + (f"<h3>As stated by the evaluation</h3>{facts(stated)}" if stated else "")


def _provenance(data: ReportData) -> str:
    parts = [_data_notes(data)]
    tables: tuple[tuple[str, Mapping[str, Any]], ...] = (("Hardware", data.hardware), ("Versions", data.versions))
    for title, content in tables:
        if content:
            parts.append(f"<h3>{title}</h3>{facts(content)}")
    if data.config:
        parts.append(details("Resolved configuration", f"<pre>{text(toml(data.config))}</pre>"))
    else:
        parts.append(missing("No configuration: this folder has no run.json.", "neuropil train run.toml"))
    for log in data.training:
        if log.card:
            parts.append(details(f"Model card of {log.network}", f"<pre>{text(toml(log.card))}</pre>"))
    for model in data.models:
        if model.config:
            parts.append(details(f"Evaluation of {model.model}", f"<pre>{text(toml(model.config))}</pre>"))
    if data.other:
        parts.append(details("Further entries of run.json", f"<pre>{text(toml(data.other))}</pre>"))
    return "".join(parts)


def _data_notes(data: ReportData) -> str:
    if not data.data_notes:
        return missing("No word on the data: run.json names no source, licence or citation.")
    blocks = "".join(facts({key: plain(value) for key, value in one.items()}) for one in data.data_notes)
    return f"<h3>Data, licence and citation</h3>{blocks}"


def _footer(data: ReportData) -> str:
    version = data.versions.get("neuropil")
    made = f"neuropil {version}" if version else "neuropil"
    return (
        f"<footer>Made by {text(made)}: <code>neuropil report {text(data.run)}</code>. This page is complete in itself "
        "and loads nothing from elsewhere. Figures after Lee, Zlateski, Vishwanathan and Seung, “Recursive Training of "
        "2D-3D Convolutional Networks for Neuronal Boundary Detection”, NIPS 2015.</footer>"
    )
