"""A view of volumes: served by this process, opened in any browser by its link.

Everything comes from here: pages from the installed package, voxels from the volumes, in pieces. A content security
policy in the page has the browser refuse every other address. Who has the link, with its token, can look; by default
only on this machine.
"""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable, Sequence
from typing import Any, Literal

from neuropil.errors import InputError
from neuropil.view.layers import (
    dimensions,
    layer_of,
    local_volume,
    neuroglancer,
    point_nm,
    points_layer,
    position,
    source_of,
)
from neuropil.view.shown import LABELS, Points, Shown

Layout = Literal["auto", "one", "side-by-side"]
Handler = Callable[[tuple[float, float, float] | None], None]
HERE = "neuropil://"
"""Stands in a saved state for the address of a volume, which is another one in every process."""
_POLICY = (
    "default-src 'self' blob: data: 'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval'; "
    "connect-src 'self' blob: data:; form-action 'none'; base-uri 'none'"
)


class View:
    """An open view.

    Parameters
    ----------
    shown : volumes, at least one; the first says the unit of positions
    points : places to look at
    layout : "side-by-side" gives every map and every labelling a panel of its own, over the image; "auto" does where
        there are two to four
    bind, port : where to listen; port 0 is any that is free

    Raises
    ------
    InputError : nothing to show, names that are not unique, an address that cannot be had
    MissingExtra : neuroglancer is not installed
    """

    def __init__(
        self,
        shown: Sequence[Shown],
        points: Sequence[Points] = (),
        *,
        layout: Layout = "auto",
        bind: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        names = [one.name for one in shown] + [one.name for one in points]
        if not shown:
            raise InputError("there is nothing to show; give at least one volume")
        if len(set(names)) < len(names):
            raise InputError(f"layers must have different names; got {', '.join(names)}")
        self.shown = {one.name: one for one in shown}
        self.first = shown[0]
        self._marks: set[str] = set()
        self._volumes = {one.name: local_volume(one) for one in shown}
        ng = neuroglancer()
        _check_address(bind, port)
        ng.set_static_content_source(source=_pages())
        ng.set_server_bind_address(bind, port)
        self._viewer = ng.Viewer(token=secrets.token_urlsafe(24))  # a token of ours: no credentials are handed out
        self.bind, self.port = bind, int(ng.server.global_server.port)
        self._viewer.set_state(self._fresh(points, layout))

    @property
    def link(self) -> str:
        """Address to open in a browser, with the token."""
        host = socket.getfqdn() if self.bind in ("0.0.0.0", "::") else self.bind
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/v/{self._viewer.token}/"

    def close(self) -> None:
        """Stop serving."""
        neuroglancer().stop()

    def state(self) -> dict[str, Any]:
        """Return what is seen now, JSON-able, without anything that holds in this process alone."""
        state = _each_source(self._viewer.state.to_json(), lambda name, source: _named(name, source, self.shown))
        return {**state, "layers": [layer for layer in state["layers"] if layer["name"] not in self._marks]}

    def restore(self, state: dict[str, Any]) -> None:
        """Show what a saved state says; its volumes must be shown already, by the same names.

        Raises
        ------
        InputError : no state of a view, or a volume that is not shown
        """
        own = {layer["name"]: layer["source"] for layer in self._viewer.state.to_json()["layers"]}

        def source_here(name: str, source: Any) -> Any:
            if source != HERE + name:
                return source
            if name not in self.shown:
                raise InputError(f"the state shows {name}, which is not given; shown are {', '.join(self.shown)}")
            return own[name]

        try:
            self._viewer.set_state(_each_source(state, source_here))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"the state cannot be shown: {error!r}") from None

    def say(self, text: str | None) -> None:
        """Show a line at the foot of the page; None takes it away."""
        with self._viewer.config_state.txn() as config:
            if text is None:
                config.status_messages.pop("neuropil", None)
            else:
                config.status_messages["neuropil"] = text

    def on(self, keys: Sequence[str], action: str, handler: Handler) -> None:
        """Call a function when keys or buttons are pressed, with the point under the mouse, z, y, x in nm."""

        def call(happened: Any) -> None:
            place = happened.mouse_position
            handler(None if place is None else point_nm(place.tolist(), self.first))

        self._viewer.actions.add(action, call)
        with self._viewer.config_state.txn() as config:
            for key in keys:
                where = config.input_event_bindings.data_view if "mouse" in key else config.input_event_bindings.viewer
                where[key] = action

    def look_at(self, place: Sequence[float]) -> None:
        """Go to a voxel z, y, x of the first volume."""
        point = [o + p * s for o, p, s in zip(self.first.offset, place, self.first.voxel_size)]
        with self._viewer.txn() as state:
            state.position = position(point, self.first)

    def mark(self, points: Points, colour: str = "#ffffff") -> None:
        """Show points in a layer of their own, which no saved view keeps; none takes the layer away."""
        self._marks.add(points.name)
        with self._viewer.txn() as state:
            if points.name in state.layers:
                del state.layers[points.name]
            if len(points.texts):
                state.layers[points.name] = points_layer(points, self.first, colour)

    def changed(self, name: str) -> None:
        """Have the browser read a volume again."""
        self._volumes[name].invalidate()

    def _fresh(self, points: Sequence[Points], layout: Layout) -> Any:
        """Return the state that a new view begins with."""
        ng, first = neuroglancer(), self.first
        state = ng.ViewerState(dimensions=dimensions(first.voxel_size), title="neuropil", show_axis_lines=False)
        size = [n * s for n, s in zip(first.source.shape[-3:], first.voxel_size)]
        state.position = position([o + (n - s) / 2 for o, n, s in zip(first.offset, size, first.voxel_size)], first)
        unit = min(first.voxel_size)
        panels = _panels(list(self.shown.values()), layout)
        # One plane fills a window of usual size.
        state.cross_section_scale = max(size[1] / 600, size[2] * len(panels) / 1000) / unit
        state.projection_scale = 1.5 * max(size) / unit
        labelled = sorted((one.role != "segmentation", one.name) for one in self.shown.values() if one.role in LABELS)
        hidden = [name for _, name in labelled[1:]] if len(panels) == 1 else []  # one over another show neither
        for one in self.shown.values():
            layer = layer_of(one, source_of(one, self._volumes[one.name], first))
            state.layers.append(name=one.name, layer=layer, visible=one.name not in hidden)
        for places in points:
            state.layers[places.name] = points_layer(places, first)
        flat = first.voxel_size[0] >= 3 * min(first.voxel_size[1:]) or first.source.shape[-3] < 16
        over = [places.name for places in points]
        if len(panels) > 1:
            state.layout = ng.row_layout([ng.LayerGroupViewer(layers=[*panel, *over], layout="xy") for panel in panels])
        else:
            state.layout = "xy" if flat else "4panel"
        return state


def _check_address(bind: str, port: int) -> None:
    """Raise InputError unless this process may listen there."""
    try:
        family = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((bind, port))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot listen at {bind} port {port}: {reason}; --port 0 takes any that is free") from None


def _panels(shown: list[Shown], layout: Layout) -> list[list[str]]:
    """Return the layers of each panel: image and mask everywhere, everything else by itself."""
    under = [one.name for one in shown if one.role in ("image", "mask")]
    over = [one.name for one in shown if one.role not in ("image", "mask")]
    if layout == "one" or (len(over) > 4 and layout == "auto"):
        return [[one.name for one in shown]]
    if len(over) == 1 and under and any(one.role == "affinities" for one in shown):  # which hide what is below
        return [under, over]
    return [[*under, name] for name in over] or [under]


def _each_source(state: dict[str, Any], change: Callable[[str, Any], Any]) -> dict[str, Any]:
    """Return a state with the source of each layer changed."""
    layers = [
        {**layer, "source": change(layer["name"], layer["source"])} if "source" in layer else layer
        for layer in state["layers"]
    ]
    return {**state, "layers": layers}


def _named(name: str, source: Any, shown: dict[str, Shown]) -> Any:
    """Return the source of a layer of ours by its name, any other as it is."""
    return HERE + name if name in shown and "python://" in str(source) else source


def _pages() -> Any:
    """Return the installed pages, with the policy in the first."""
    from neuroglancer import static

    class Pages(static.ImportlibResourcesContentSource):  # type: ignore[misc]
        def get_content(self, name: str) -> bytes:
            content: bytes = super().get_content(name)
            if name != "index.html":
                return content
            policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            icon = '<link rel="icon" href="data:,">'  # else the browser asks for one
            return content.replace(b"<head>", f"<head>{policy}{icon}".encode(), 1)

    logging.getLogger("tornado").addHandler(logging.NullHandler())  # else it sets up logging, and lines come twice
    logging.getLogger("tornado.access").setLevel(logging.ERROR)  # a browser that asks for more than there is
    return Pages()
