"""The parts of the page that show pictures: sections with every model side by side, and the worst errors."""

from __future__ import annotations

from collections.abc import Sequence

from neuropil.report import pictures
from neuropil.report.data import (
    Decoder,
    Image,
    Labels,
    ModelPicture,
    ReportData,
    SectionPanel,
    SegmentationError,
)
from neuropil.report.markup import details, missing, table, text
from neuropil.report.pictures import draw, highlight, link_colours, outlines, paint, png_uri, scale_bar

WHITE = (255, 255, 255)
ROWS: tuple[Decoder, ...] = ("components", "watershed", "segmentation")
MODEL_ROWS = ("boundary map", "affinities along z, y, x", "fragments", *ROWS)


def sections_part(data: ReportData) -> str:
    """Return each section as a matrix of pictures: first column image and truth, then one column per model."""
    if not data.panels:
        return missing("No pictures were kept.", "neuropil evaluate run.toml")
    lead = (
        '<p class="lead">Boundary maps: black is boundary, probability 1. Affinities: red, green and blue are the '
        "links to the voxel before in z, y and x; white is inside, black is boundary. Segmentations: black is "
        "background, white is a border between true objects where the segmentation has no background. A segment that "
        "is the largest piece of a true object has that object’s colour, so a foreign colour is a split, and a colour "
        "that crosses a white line is a merge. Click a picture to enlarge it.</p>"
    )
    return lead + "".join(_section(panel) for panel in data.panels)


def errors_part(data: ReportData) -> str:
    """Return the worst merge and split of each model with thumbnails, and a table of the others."""
    if not data.errors:
        return missing("No list of merges and splits in the evaluations.", "neuropil evaluate run.toml")
    worst: dict[tuple[str, str], SegmentationError] = {}
    for error in data.errors:
        worst.setdefault((error.model, error.kind), error)
    baselines = {one.model for one in data.models if one.baseline}
    ranked = {one.model: -(one.best_f or 0.0) for one in data.models}
    chosen = [error for (model, _), error in worst.items() if model not in baselines] or list(worst.values())
    chosen.sort(key=lambda error: (ranked.get(error.model, 0.0), error.kind))
    lead = (
        '<p class="lead">The largest false merger and the largest false split of each model. Coordinates are z, y, x '
        "in voxels. In colour: the true objects and the segments involved.</p>"
    )
    cases = f'<div class="cases">{"".join(_case(error) for error in chosen)}</div>'
    return lead + cases + _errors_table(data.errors)


def _section(panel: SectionPanel) -> str:
    height, width = panel.image.shape
    y, x = panel.corner
    place = f"{height} × {width} voxels from y {y}, x {x}"
    if panel.voxel_size is None:
        place += "; voxel size unknown, so no scale bar"
    models = [_model_column(one, panel) for one in panel.models]
    # A row is a kind of picture; cells of what a model lacks stay empty, so that models remain in line.
    kept = [row for row in range(len(MODEL_ROWS)) if any(column[row] for column in models)]
    columns = [_reference_column(panel), *([column[row] for row in kept] for column in models)]
    rows = max(len(column) for column in columns)
    cells = [
        (column[row] if row < len(column) else "") or "<figure></figure>" for row in range(rows) for column in columns
    ]
    return (
        f"<h3>Section {panel.z}<small>{text(place)}</small></h3>"
        f'<div class="matrix" style="--n:{len(columns)}">{"".join(cells)}</div>'
    )


def _reference_column(panel: SectionPanel) -> list[str]:
    column = [figure(panel.image, "<b>image</b>", _scale(panel))]
    if panel.truth is not None:
        column.append(figure(paint(panel.truth), "<b>truth</b>"))
        outlined = draw(panel.image, outlines(panel.truth), pictures.ORANGE)
        column.append(figure(outlined, "<b>image</b> with borders of the truth"))
    return column


def _model_column(one: ModelPicture, panel: SectionPanel) -> list[str]:
    """Return one picture, or "", per row of `MODEL_ROWS`."""
    name = f"<b>{text(one.model)}</b>"
    made = {decoder: segmentation_picture(labels, panel.truth) for decoder, labels in one.segmentations.items()}
    found: dict[str, Image] = {str(decoder): picture for decoder, picture in made.items()}
    if one.boundary is not None:
        found["boundary map"] = 255 - one.boundary
    if one.affinities is not None:
        found["affinities along z, y, x"] = link_colours(one.affinities)
    if one.fragments is not None:
        found["fragments"] = paint(one.fragments, panel.truth)
    return [figure(found[row], f"{name} {row}") if row in found else "" for row in MODEL_ROWS]


def segmentation_picture(labels: Labels, truth: Labels | None) -> Image:
    """Colour a segmentation and draw the true borders in white wherever it says there is none."""
    picture = paint(labels, truth)
    return picture if truth is None else draw(picture, outlines(truth) & (labels > 0), WHITE)


def _case(error: SegmentationError) -> str:
    title = f"Worst {error.kind}: {error.model}" + (f", {error.decoder}" if error.decoder else "")
    facts = [_listed("true object", error.truth_ids), _listed("segment", error.segment_ids)]
    facts += [f"{key} {value}" for key, value in error.facts.items()]
    words = f"at <code>{_place(error)}</code> {text('; '.join(fact for fact in facts if fact))}"
    if error.panel is None:
        thumbs = missing(f"Section {error.place[0]} is not among those whose pictures were kept.")
    else:
        thumbs = f'<div class="thumbs">{"".join(_thumbnails(error, error.panel))}</div>'
    return f'<div class="case"><h3>{text(title)}</h3><p>{words}</p>{thumbs}</div>'


def _listed(word: str, ids: Sequence[int]) -> str:
    """Name some ids, as in "segments 3 and 9"."""
    names = [str(one) for one in ids]
    if len(names) < 2:
        return f"{word} {names[0]}" if names else ""
    return f"{word}s {', '.join(names[:-1])} and {names[-1]}"


def _thumbnails(error: SegmentationError, panel: SectionPanel) -> list[str]:
    y, x = error.place[1] - panel.corner[0], error.place[2] - panel.corner[1]
    height, width = panel.image.shape
    spot = f'<span class="spot" style="left:{100 * (x + 0.5) / width:.1f}%;top:{100 * (y + 0.5) / height:.1f}%"></span>'
    thumbs = [figure(panel.image, "image", spot + _scale(panel))]
    one = panel.models[0] if panel.models else None
    if one is not None and one.boundary is not None:
        thumbs.append(figure(255 - one.boundary, "boundary map", spot))
    labels = _labels_of(error, one)
    involved = _true_objects(error, panel.truth, (y, x)) if panel.truth is not None else []
    if panel.truth is not None:
        thumbs.append(figure(highlight(panel.image, panel.truth, involved), "truth", spot))
    if labels is not None:
        here = pictures.ids_by_size(labels)
        segments = [one for one in error.segment_ids if one in here] or _segments_in(labels, panel.truth, involved)
        segments = segments or _ids_near(labels, (y, x))
        thumbs.append(figure(highlight(panel.image, labels, segments), "segmentation", spot))
    return thumbs


def _labels_of(error: SegmentationError, one: ModelPicture | None) -> Labels | None:
    """Return the segmentation the error was found in; the last decoder there is, if that was not said."""
    if one is None:
        return None
    if error.decoder is not None:
        return one.segmentations.get(error.decoder)
    return next((one.segmentations[decoder] for decoder in reversed(ROWS) if decoder in one.segmentations), None)


def _true_objects(error: SegmentationError, truth: Labels, centre: tuple[int, int]) -> list[int]:
    here = set(pictures.ids_by_size(truth))
    named = [one for one in error.truth_ids if one in here]
    return named or _ids_near(truth, centre)


def _segments_in(labels: Labels, truth: Labels | None, objects: Sequence[int]) -> list[int]:
    """Return the segments that cover at least 3 % of the involved true objects, largest first."""
    if truth is None or not objects:
        return []
    inside = pictures.mask_of(truth, objects)
    sizes = pictures.ids_by_size(labels * inside)
    return [one for one, count in sizes.items() if count >= 0.03 * int(inside.sum())][:6]


def _ids_near(labels: Labels, centre: tuple[int, int], reach: int = 7) -> list[int]:
    y, x = centre
    near = labels[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
    return list(pictures.ids_by_size(near))[:3]


def _errors_table(errors: Sequence[SegmentationError]) -> str:
    rows = [
        [
            text(error.model),
            text(error.decoder),
            error.kind,
            f"<code>{_place(error)}</code>",
            text(", ".join(map(str, error.truth_ids)) or None),
            text(", ".join(map(str, error.segment_ids)) or None),
            text("; ".join(f"{key} {value}" for key, value in error.facts.items()) or None),
        ]
        for error in errors
    ]
    head = ["model", "decoder", "kind", "z, y, x", "true objects", "segments", "more"]
    return details(f"All {len(rows)} listed errors", table("Worst first, per model and kind", head, rows, words=7))


def _place(error: SegmentationError) -> str:
    return ", ".join(map(str, error.place))


def _scale(panel: SectionPanel) -> str:
    return "" if panel.voxel_size is None else scale_mark(panel.image.shape[1], panel.voxel_size[2])


def scale_mark(width: int, pixel_nm: float) -> str:
    """Return the scale bar (HTML) to lay over a picture of so many pixels of so many nm."""
    fraction, words = scale_bar(width, pixel_nm)
    return f'<span class="bar-mark" style="width:{100 * fraction:.2f}%"><i>{text(words)}</i></span>'


def figure(picture: Image, caption: str, over: str = "") -> str:
    """Return one picture with its caption (HTML); `over` is laid on it. A hidden check box enlarges it on a click."""
    alt = caption.replace("<b>", "").replace("</b>", "")
    height, width = picture.shape[:2]
    return (
        f'<figure><label class="picture"><input type="checkbox" aria-label="enlarge {alt}">'
        f'<img src="{png_uri(picture)}" width="{width}" height="{height}" alt="{alt}">{over}</label>'
        f"<figcaption>{caption}</figcaption></figure>"
    )
