"""The report of a run: one self-contained HTML page with scores, curves, pictures and provenance.

`data` holds what a report shows, as plain frozen dataclasses; `collect.collect_run` reads a run folder into them;
`page.render` turns them into HTML. `charts` draws inline SVG, `pictures` makes PNG data URIs.
"""
